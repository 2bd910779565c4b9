//! The status in words, for people. Pure.

use std::time::{Duration, SystemTime};

use ollama_coordinator_common::protocol::runtime::{RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::view::UnroutableReason;

use crate::pause::Pause;
use crate::status::{AgentStatus, LinkStatus, Phase, RuntimeSummary};

/// How good it is, by which it is coloured and marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Requests come.
    Good,
    /// Somebody wants it so.
    Resting,
    /// It will be good by itself.
    Waiting,
    /// Somebody has to look.
    Bad,
}

/// What the page says on top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) tone: Tone,
    pub(super) headline: String,
    pub(super) detail: String,
}

/// Says how the agent is, in one line and one sentence.
pub(super) fn summary(status: &AgentStatus, now: SystemTime) -> Summary {
    let coordinator = status.coordinator.as_ref();
    let coordinator = coordinator.map_or_else(String::new, ToString::to_string);
    let error = status.last_error.clone().unwrap_or_default();
    if status.is_outdated {
        return say(
            Tone::Waiting,
            "Changing the settings",
            "The coordinator is told goodbye, then it goes on with the new ones.",
        );
    }
    match (status.phase, status.paused) {
        (Phase::Unconfigured, _) => say(
            Tone::Waiting,
            "Not set up yet",
            "Enter the coordinator's URL below; it is printed by ollama-coordinator when it starts.",
        ),
        (Phase::Leaving | Phase::Stopped, _) => say(
            Tone::Waiting,
            "Finishing",
            "What runs here is finished; no further requests are taken.",
        ),
        (_, Some(pause)) => say(
            Tone::Resting,
            paused(pause, now),
            "This machine takes no requests. Those that were running may finish.",
        ),
        (Phase::Starting, None) => say(
            Tone::Waiting,
            "Starting",
            "Looking at this machine and its runtime.",
        ),
        (Phase::Joining { attempts: 0 }, None) => {
            say(Tone::Waiting, "Joining", format!("Asking {coordinator}."))
        }
        (Phase::Joining { .. } | Phase::Disconnected { .. }, None) => say(
            Tone::Bad,
            "Not connected",
            format!("{error}. It is tried again by itself."),
        ),
        (Phase::Connected { unroutable: None }, None) => {
            say(Tone::Good, "Sharing", sharing(status.running, &coordinator))
        }
        (
            Phase::Connected {
                unroutable: Some(reason),
            },
            None,
        ) => unroutable(reason),
    }
}

fn sharing(running: usize, coordinator: &str) -> String {
    match running {
        0 => format!("Requests come from {coordinator}."),
        1 => format!("1 request from {coordinator} runs here."),
        _ => format!("{running} requests from {coordinator} run here."),
    }
}

fn say(tone: Tone, headline: impl Into<String>, detail: impl Into<String>) -> Summary {
    Summary {
        tone,
        headline: headline.into(),
        detail: detail.into(),
    }
}

fn paused(pause: Pause, now: SystemTime) -> String {
    match pause.left(now) {
        None => "Paused until you resume".to_owned(),
        Some(left) => format!("Paused for another {}", about(left)),
    }
}

/// Returns a duration as one says it, rounded up.
fn about(duration: Duration) -> String {
    let minutes = duration.as_secs().div_ceil(60).max(1);
    match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    }
}

fn unroutable(reason: UnroutableReason) -> Summary {
    match reason {
        UnroutableReason::Offline | UnroutableReason::Unverified => say(
            Tone::Waiting,
            "Connected",
            "The coordinator has not tried this machine yet; that takes a second or two.",
        ),
        UnroutableReason::Draining => say(
            Tone::Resting,
            "Draining",
            "Somebody at the coordinator wants this machine to take no further requests.",
        ),
        UnroutableReason::Paused => say(
            Tone::Waiting,
            "Resuming",
            "The coordinator has not heard yet that the pause is over.",
        ),
        UnroutableReason::Unreachable => say(
            Tone::Bad,
            "Not reachable",
            "The coordinator cannot reach the runtime at the address that is advertised.",
        ),
        UnroutableReason::NoTunnel => say(
            Tone::Waiting,
            "Connected",
            "The connection for requests is being opened.",
        ),
        UnroutableReason::RuntimeNotAnswering => say(
            Tone::Bad,
            "The runtime does not answer",
            "Connected to the coordinator. Requests come once Ollama runs on this machine.",
        ),
        UnroutableReason::Ejected => say(
            Tone::Bad,
            "Set aside for a moment",
            "Requests failed here, so the coordinator waits before it sends the next one.",
        ),
    }
}

/// Returns the facts below that, each with its name.
pub(super) fn facts(status: &AgentStatus) -> Vec<(&'static str, String)> {
    let coordinator = status.coordinator.as_ref();
    let link = match status.link {
        LinkStatus::Direct => "the coordinator dials the runtime",
        LinkStatus::TunnelDown => "over a connection of this agent, which is not there",
        LinkStatus::TunnelUp => "over a connection of this agent",
    };
    let mut facts = vec![("Machine", status.machine_name.clone())];
    if let Some(coordinator) = coordinator {
        facts.push(("Coordinator", coordinator.to_string()));
        facts.push(("Requests come", link.to_owned()));
    }
    facts.push(("Runtime", runtime(&status.runtime)));
    let finishing = match status.finishing {
        0 => None,
        1 => Some("1 request that came before the settings were changed".to_owned()),
        count => Some(format!(
            "{count} requests that came before the settings were changed"
        )),
    };
    facts.extend(finishing.map(|finishing| ("Still running", finishing)));
    if let Some(id) = status.agent_id {
        facts.push(("Agent", id.to_string()));
    }
    facts.push(("Version", env!("CARGO_PKG_VERSION").to_owned()));
    facts
}

fn runtime(runtime: &RuntimeSummary) -> String {
    let url = &runtime.url;
    match (&runtime.report, &runtime.error) {
        (Some(report), None) if report.status == RuntimeStatus::Running => {
            format!("{url}, {}", described(report))
        }
        (_, Some(error)) => format!("{url}: {error}"),
        (Some(_) | None, None) => url.to_string(),
    }
}

fn described(report: &RuntimeReport) -> String {
    let version = report.version.as_deref().unwrap_or("unknown version");
    match report.models.len() {
        1 => format!("{version}, 1 model"),
        count => format!("{version}, {count} models"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(1, "1 min")]
    #[case(60, "1 min")]
    #[case(61, "2 min")]
    #[case(3_600, "1 h")]
    #[case(5_400, "1 h 30 min")]
    fn durations_are_told_as_people_say_them(#[case] seconds: u64, #[case] expected: &str) {
        assert_eq!(about(Duration::from_secs(seconds)), expected);
    }
}
