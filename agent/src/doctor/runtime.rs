//! The model runtime: whether it answers, what it has, and where else one answers.

use std::net::Ipv4Addr;
use std::time::Duration;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::doctor::{Check, CheckId};
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpTimeouts};
use ollama_coordinator_common::probe::{ANSWER_LIMIT, ProbeError, probe};
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeReport};
use tokio::task::JoinSet;

use super::TIMEOUTS;
use crate::config::Config;
use crate::error_chain;

/// Where runtimes listen unless told otherwise: Ollama, llama.cpp, vLLM, LM Studio.
const USUAL_PORTS: [u16; 4] = [11434, 8080, 8000, 1234];
/// For looks at ports on which probably nothing is.
const GLANCE: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_millis(500),
    answer: Duration::from_secs(2),
};

/// Looks at the runtime, and around when it is not there.
pub(super) async fn look(config: &Config) -> Vec<Check> {
    let runtime = &config.runtime;
    let mut client = HttpClient::new(runtime.clone(), TIMEOUTS).with_answer_limit(ANSWER_LIMIT);
    match probe(&mut client).await {
        Ok(report) => vec![found(runtime, &report), models(&report)],
        Err(error) => vec![missing(runtime, &error, elsewhere(runtime).await)],
    }
}

fn found(runtime: &BaseUrl, report: &RuntimeReport) -> Check {
    Check::ok(
        CheckId::Runtime,
        format!("{} at {runtime}", described(report)),
    )
}

fn described(report: &RuntimeReport) -> String {
    let kind = match report.kind {
        RuntimeKind::Ollama => "Ollama",
        RuntimeKind::Openai => "a server with the OpenAI API",
    };
    match &report.version {
        Some(version) => format!("{kind} {version}"),
        None => kind.to_owned(),
    }
}

fn models(report: &RuntimeReport) -> Check {
    let id = CheckId::Models;
    match report.models.len() {
        0 => Check::warning(id, "none yet")
            .with_remedy("pull one in the dashboard, or: ollama pull llama3.2"),
        1 => Check::ok(id, "1 model"),
        count => Check::ok(id, format!("{count} models")),
    }
}

fn missing(runtime: &BaseUrl, error: &ProbeError, elsewhere: Option<(BaseUrl, String)>) -> Check {
    let found = format!("{runtime}: {}", error_chain(error));
    let remedy = match (elsewhere, error) {
        (Some((url, kind)), _) => {
            format!("{kind} answers at {url}: use --runtime {url} (OLLAMA_AGENT_RUNTIME)")
        }
        (None, ProbeError::NotAnswering(HttpError::Connect { .. })) => {
            "start it, or name it with --runtime; Ollama: https://ollama.com/download".to_owned()
        }
        (None, ProbeError::NotAnswering(_) | ProbeError::Refused { .. }) => {
            "look at the runtime's own log".to_owned()
        }
        (
            None,
            ProbeError::Coordinator | ProbeError::WebPage(_) | ProbeError::NotARuntime { .. },
        ) => "name the runtime with --runtime (OLLAMA_AGENT_RUNTIME)".to_owned(),
    };
    Check::error(CheckId::Runtime, found).with_remedy(remedy)
}

/// Looks for a runtime at the usual ports of this machine, never anywhere else.
async fn elsewhere(runtime: &BaseUrl) -> Option<(BaseUrl, String)> {
    let mut looks = JoinSet::new();
    for (rank, port) in USUAL_PORTS.into_iter().enumerate() {
        let url = BaseUrl::from_addr((Ipv4Addr::LOCALHOST, port).into());
        if url == *runtime {
            continue;
        }
        looks.spawn(async move {
            let mut client = HttpClient::new(url.clone(), GLANCE).with_answer_limit(ANSWER_LIMIT);
            let report = probe(&mut client).await.ok()?;
            Some((rank, url, described(&report)))
        });
    }
    let found = looks.join_all().await.into_iter().flatten();
    let first = found.min_by_key(|(rank, ..)| *rank)?;
    Some((first.1, first.2))
}
