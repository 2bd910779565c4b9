//! `AgentStatus`: the one value that everything which shows the agent reads, in a `watch`.

pub mod view;
pub(crate) mod writer;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::view::UnroutableReason;

use crate::config::{Config, Link};
use crate::pause::Pause;

/// How the agent is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStatus {
    /// How it stands with the coordinator.
    pub phase: Phase,
    /// How the coordinator's requests reach the runtime.
    pub link: LinkStatus,
    /// Requests that the agent carries to the runtime now; those of a direct link it does not see.
    pub running: usize,
    /// Requests that began before the settings were changed, and still run.
    pub finishing: usize,
    /// Other settings are wanted than those that are shown here.
    pub is_outdated: bool,
    /// Whether its owner lets it take requests; `None`: it may.
    pub paused: Option<Pause>,
    /// Where the coordinator is; `None`: nobody has said it yet.
    pub coordinator: Option<BaseUrl>,
    /// Its id, once the identity has been read.
    pub agent_id: Option<AgentId>,
    /// What the machine is called.
    pub machine_name: String,
    /// The runtime.
    pub runtime: RuntimeSummary,
    /// What went wrong last with the coordinator, while it is wrong.
    pub last_error: Option<String>,
}

/// How the agent stands with the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody has said where the coordinator is.
    Unconfigured,
    /// Reads its identity and looks around.
    Starting,
    /// Tries to register.
    Joining {
        /// Failed attempts in a row.
        attempts: u32,
    },
    /// Registered; heartbeats are answered.
    Connected {
        /// Why the coordinator sends no requests here, if it does not.
        unroutable: Option<UnroutableReason>,
    },
    /// Registered; heartbeats are not answered.
    Disconnected {
        /// Failed heartbeats in a row.
        failures: u32,
    },
    /// Says goodbye.
    Leaving,
    /// Ended.
    Stopped,
}

/// How the coordinator's requests reach the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkStatus {
    /// The coordinator dials it.
    Direct,
    /// Through a connection of this agent that is not there.
    TunnelDown,
    /// Through a connection of this agent.
    TunnelUp,
}

/// The runtime in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSummary {
    /// Where it is.
    pub url: BaseUrl,
    /// What it last said; absent before the first look.
    pub report: Option<RuntimeReport>,
    /// Why it cannot be used, when it cannot.
    pub error: Option<String>,
}

impl AgentStatus {
    /// Returns the status of an agent that has not started yet.
    pub fn starting(config: &Config) -> Self {
        Self {
            phase: match config.coordinator {
                Some(_) => Phase::Starting,
                None => Phase::Unconfigured,
            },
            link: match config.link {
                Link::Direct { .. } => LinkStatus::Direct,
                Link::Tunnel => LinkStatus::TunnelDown,
            },
            running: 0,
            finishing: 0,
            is_outdated: false,
            paused: None,
            coordinator: config.coordinator.clone(),
            agent_id: None,
            machine_name: config.machine_name.clone(),
            runtime: RuntimeSummary {
                url: config.runtime.clone(),
                report: None,
                error: None,
            },
            last_error: None,
        }
    }
}
