//! What happened to an agent, for the log and for the event stream.

use std::net::SocketAddr;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;

use super::snapshot::AgentSnapshot;

/// One change of one agent that others can see.
#[derive(Debug, Clone)]
pub enum Transition {
    /// It registered for the first time.
    Joined(AgentSnapshot),
    /// It is heard of again after having been silent for longer than its lease.
    Returned(AgentSnapshot),
    /// It was silent for longer than its lease.
    Expired {
        /// The agent, now offline.
        agent: AgentSnapshot,
        /// How long it has been silent.
        silent_for: Duration,
    },
    /// It was silent for longer than its lease, but its runtime answers: it stays online for now.
    HeartbeatsMissing {
        /// The agent.
        agent: AgentSnapshot,
        /// How long it has been silent.
        silent_for: Duration,
    },
    /// It said goodbye.
    Left(AgentSnapshot),
    /// It may get requests now, or may not any more.
    RoutabilityChanged(AgentSnapshot),
    /// Something else about it changed.
    Changed(AgentSnapshot),
    /// It was forgotten.
    Removed(AgentId),
    /// Two agents front one runtime.
    EndpointShared {
        /// Where the runtime is.
        endpoint: SocketAddr,
        /// Who came later.
        id: AgentId,
        /// Who was there.
        other: AgentId,
    },
    /// Most of the fleet fell silent at once, so that the coordinator doubts itself.
    IsolationSuspected {
        /// How many agents are silent.
        overdue: usize,
        /// How many were online.
        online: usize,
    },
}

impl Transition {
    /// Writes the log line that an operator wants for this transition.
    pub(super) fn log(&self) {
        match self {
            Self::Joined(agent) => {
                let address = format!("{}:{}", agent.stored.ip_address, agent.stored.port);
                tracing::info!(
                    agent.name = agent.name(), agent.id = %agent.id(), address,
                    link = %agent.stored.link, models = agent.stored.runtime.models.len(), "Agent joined"
                );
            }
            Self::Returned(agent) => {
                tracing::info!(agent.name = agent.name(), agent.id = %agent.id(), "Agent is back");
            }
            Self::Expired { agent, silent_for } => {
                tracing::warn!(
                    agent.name = agent.name(), agent.id = %agent.id(), silent_ms = ms(*silent_for),
                    "Agent is offline: its lease ran out"
                );
            }
            Self::HeartbeatsMissing { agent, silent_for } => {
                tracing::warn!(
                    agent.name = agent.name(), agent.id = %agent.id(), silent_ms = ms(*silent_for),
                    "Agent is silent, but its runtime answers: it stays online for now"
                );
            }
            Self::Left(agent) => {
                tracing::info!(
                    agent.name = agent.name(), agent.id = %agent.id(), "Agent said goodbye"
                );
            }
            Self::RoutabilityChanged(agent) => {
                let (id, name) = (agent.id(), agent.name());
                if let Some(reason) = agent.reason {
                    tracing::warn!(agent.name = name, agent.id = %id, %reason, "Agent gets no requests");
                } else {
                    tracing::info!(agent.name = name, agent.id = %id, "Agent gets requests");
                }
            }
            Self::Changed(agent) => {
                tracing::debug!(agent.id = %agent.id(), "Agent changed");
            }
            Self::Removed(id) => tracing::info!(agent.id = %id, "Agent was forgotten"),
            Self::EndpointShared {
                endpoint,
                id,
                other,
            } => tracing::warn!(
                %endpoint, agent.id = %id, other = %other,
                "Two agents front one runtime, which gets twice its share; stop one of them"
            ),
            Self::IsolationSuspected { overdue, online } => tracing::warn!(
                overdue,
                online,
                "Most agents fell silent at once, so this coordinator may be the one cut off; \
                 their leases run one TTL longer"
            ),
        }
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
