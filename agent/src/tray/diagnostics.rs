//! What helps somebody else to find a fault, as text to paste. No secrets: only what is shown anyway.

use std::fmt::Write as _;

use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeReport};

use super::condition::Condition;
use crate::status::{AgentStatus, LinkStatus, RuntimeSummary};

/// Describes the agent, one fact on each line.
pub(crate) fn describe(status: &AgentStatus) -> String {
    let unknown = || "not known yet".to_owned();
    let facts = [
        ("machine", status.machine_name.clone()),
        ("state", Condition::of(status).to_string()),
        (
            "coordinator",
            status
                .coordinator
                .as_ref()
                .map_or_else(|| "not set".to_owned(), ToString::to_string),
        ),
        (
            "agent id",
            status.agent_id.map_or_else(unknown, |id| id.to_string()),
        ),
        ("link", link(status.link).to_owned()),
        ("runtime", runtime(&status.runtime)),
        ("running", (status.running + status.finishing).to_string()),
        (
            "last error",
            status
                .last_error
                .clone()
                .unwrap_or_else(|| "none".to_owned()),
        ),
    ];
    let mut text = format!(
        "ollama-agent {} on {} {}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    );
    for (name, fact) in facts {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{name:<12} {fact}");
    }
    text
}

fn link(link: LinkStatus) -> &'static str {
    match link {
        LinkStatus::Direct => "direct",
        LinkStatus::TunnelDown => "tunnel, down",
        LinkStatus::TunnelUp => "tunnel, up",
    }
}

fn runtime(runtime: &RuntimeSummary) -> String {
    let state = match (&runtime.error, &runtime.report) {
        (Some(error), _) => error.clone(),
        (None, Some(report)) => reported(report),
        (None, None) => "not asked yet".to_owned(),
    };
    format!("{}: {state}", runtime.url)
}

fn reported(report: &RuntimeReport) -> String {
    let kind = match report.kind {
        RuntimeKind::Ollama => "Ollama",
        RuntimeKind::Openai => "OpenAI API",
    };
    let version = report.version.as_deref().unwrap_or("of unknown version");
    let (models, loaded) = (report.models.len(), report.loaded_models.len());
    format!("{kind} {version}, models {models}, loaded {loaded}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tray::view::tests::sample;

    #[test]
    fn diagnostics_name_what_is_known() {
        let mut status = sample();
        status.last_error = Some("connection refused".to_owned());

        let text = describe(&status);

        let (first, facts) = text.split_once('\n').unwrap();
        assert!(first.starts_with("ollama-agent "), "{first}");
        insta::assert_snapshot!(facts);
    }
}
