//! The status as JSON, for programs. Names are stable, fields are only ever added.

use std::time::SystemTime;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeStatus};
use ollama_coordinator_common::protocol::view::UnroutableReason;
use serde::{Deserialize, Serialize};

use super::{AgentStatus, LinkStatus, Phase, RuntimeSummary};

/// Which shape this is.
pub const SCHEMA: &str = "ollama-agent.status/1";

/// How the agent is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How it stands with the coordinator.
    pub phase: PhaseView,
    /// Failed attempts or heartbeats in a row.
    pub failures: u32,
    /// Why the coordinator sends no requests here, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unroutable: Option<UnroutableReason>,
    /// How requests come.
    pub link: LinkView,
    /// Requests that the agent carries now; those of a direct link it does not see.
    #[serde(default)]
    pub running: usize,
    /// Requests that began before the settings were changed, and still run.
    #[serde(default)]
    pub finishing: usize,
    /// The coordinator's URL, when somebody has said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinator: Option<String>,
    /// The agent's id, once its identity has been read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// What the machine is called.
    pub machine_name: String,
    /// The runtime.
    pub runtime: RuntimeStatusView,
    /// The pause, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseView>,
    /// What went wrong last with the coordinator, while it is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// How the agent stands with the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseView {
    /// Nobody has said where the coordinator is.
    Unconfigured,
    /// It looks around.
    Starting,
    /// It tries to register.
    Joining,
    /// It is registered.
    Connected,
    /// It is registered, and heartbeats are not answered.
    Disconnected,
    /// It says goodbye.
    Leaving,
    /// It has ended.
    Stopped,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkView {
    /// The coordinator dials the runtime.
    Direct,
    /// Through a connection that is not there.
    TunnelDown,
    /// Through a connection that is there.
    TunnelUp,
}

/// The runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeStatusView {
    /// Where it is.
    pub url: String,
    /// Whether it answers; absent before the first look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RuntimeStatus>,
    /// Which API it speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RuntimeKind>,
    /// Its version, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The models it can serve.
    pub models: Vec<String>,
    /// Those in its memory.
    pub loaded_models: Vec<String>,
    /// How many requests it is given at once, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Why it cannot be used, when it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// When it ends by itself, in RFC 3339; absent: when somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl From<&AgentStatus> for StatusView {
    fn from(status: &AgentStatus) -> Self {
        let (phase, failures, unroutable) = phase(status.phase);
        let until = |until: SystemTime| humantime::format_rfc3339_seconds(until).to_string();
        Self {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            phase,
            failures,
            unroutable,
            link: match status.link {
                LinkStatus::Direct => LinkView::Direct,
                LinkStatus::TunnelDown => LinkView::TunnelDown,
                LinkStatus::TunnelUp => LinkView::TunnelUp,
            },
            running: status.running,
            finishing: status.finishing,
            coordinator: status.coordinator.as_ref().map(ToString::to_string),
            agent_id: status.agent_id,
            machine_name: status.machine_name.clone(),
            runtime: RuntimeStatusView::from(&status.runtime),
            paused: status.paused.map(|pause| PauseView {
                until: pause.until.map(until),
            }),
            last_error: status.last_error.clone(),
        }
    }
}

impl From<&RuntimeSummary> for RuntimeStatusView {
    fn from(runtime: &RuntimeSummary) -> Self {
        let report = runtime.report.as_ref();
        let models = report.map_or(&[][..], |report| &report.models[..]);
        let loaded = report.map_or(&[][..], |report| &report.loaded_models[..]);
        Self {
            url: runtime.url.to_string(),
            status: report.map(|report| report.status),
            kind: report.map(|report| report.kind),
            version: report.and_then(|report| report.version.clone()),
            models: models.iter().map(|model| model.name.clone()).collect(),
            loaded_models: loaded.iter().map(|model| model.name.clone()).collect(),
            capacity: report.and_then(|report| report.slots.map(Into::into)),
            error: runtime.error.clone(),
        }
    }
}

fn phase(phase: Phase) -> (PhaseView, u32, Option<UnroutableReason>) {
    match phase {
        Phase::Unconfigured => (PhaseView::Unconfigured, 0, None),
        Phase::Starting => (PhaseView::Starting, 0, None),
        Phase::Joining { attempts } => (PhaseView::Joining, attempts, None),
        Phase::Connected { unroutable } => (PhaseView::Connected, 0, unroutable),
        Phase::Disconnected { failures } => (PhaseView::Disconnected, failures, None),
        Phase::Leaving => (PhaseView::Leaving, 0, None),
        Phase::Stopped => (PhaseView::Stopped, 0, None),
    }
}
