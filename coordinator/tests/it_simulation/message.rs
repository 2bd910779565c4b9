//! What agents and the coordinator say to each other, without its form on the wire.

use ollama_agent::session::state::Failure;
use ollama_coordinator::registry::agent::TunnelId;
use ollama_coordinator::registry::registration::NewAgent;
use ollama_coordinator_common::id::{AgentId, InstanceId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::register::LeaseTerms;
use ollama_coordinator_common::secret::SecretHash;

/// One run of the agent's process on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId {
    pub(crate) machine: usize,
    pub(crate) run: u32,
}

/// One message of a process that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) from: ProcessId,
    pub(crate) number: u64,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Register(Box<NewAgent>),
    Heartbeat(Credentials, Box<HeartbeatRequest>),
    Goodbye(Credentials, SessionId),
    Tunnel(Credentials, SessionId),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Credentials {
    pub(crate) id: AgentId,
    pub(crate) secret: SecretHash,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Reply {
    Granted(Terms),
    Renewed(Terms),
    Left,
    TunnelOpen(TunnelId),
    Failed(Failure),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) epoch: u64,
    pub(crate) lease: LeaseTerms,
    pub(crate) instance: InstanceId,
}
