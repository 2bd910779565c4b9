//! `POST /api/agents`: joining, and joining again.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::pause::Paused;
use super::runtime::RuntimeReport;
use super::system::SystemInfo;
use super::tunnel::LinkKind;
use super::view::AgentStatus;
use crate::id::{AgentId, InstanceId, SessionId};

/// The port on which Ollama listens unless told otherwise.
pub const DEFAULT_RUNTIME_PORT: u16 = 11434;

/// Asks the coordinator to know this agent. Only `machine_name` is required.
///
/// The agent's secret, when it has one, travels as a bearer token and never in here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisterRequest {
    /// What to call the machine; need not be unique.
    #[serde(alias = "hostname")]
    #[schema(max_length = 255)]
    pub machine_name: String,
    /// The runtime's port.
    #[serde(default = "default_runtime_port", alias = "ollama_port")]
    #[schema(minimum = 1)]
    pub port: u16,
    /// The runtime's version, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ollama_version: Option<String>,
    /// Where the coordinator reaches the runtime; absent: the address this request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub ip_address: Option<IpAddr>,
    /// How the coordinator reaches the runtime; with `tunnel`, the address is only shown.
    #[serde(default)]
    pub link: LinkKind,
    /// The id the agent made for itself; absent: matched by address and port, else a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// This run of the agent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The last epoch the agent was granted, so that a restored backup cannot reuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The id this agent had before it was told that another process uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<AgentId>,
    /// The machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_info: Option<SystemInfo>,
    /// The runtime as last seen by the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeReport>,
    /// Present while the machine's owner wants it to take no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// The agent's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
}

fn default_runtime_port() -> u16 {
    DEFAULT_RUNTIME_PORT
}

/// The registration is durable; these are the terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RegisterResponse {
    /// The agent's id: its own, or the one it was given.
    pub id: AgentId,
    /// Always `online` after registering.
    pub status: AgentStatus,
    /// Grows with each accepted session.
    pub epoch: u64,
    /// How often to send heartbeats and how long silence is tolerated.
    pub lease: LeaseTerms,
    /// Which coordinator run answered.
    pub coordinator: CoordinatorIdentity,
}

/// The cadence the coordinator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseTerms {
    /// Milliseconds until the next heartbeat is due.
    pub heartbeat_interval_ms: u64,
    /// Milliseconds of silence after which the agent counts as offline.
    pub ttl_ms: u64,
}

/// Which coordinator run this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorIdentity {
    /// Changes with each start of the coordinator: send the whole report again when it does.
    pub instance_id: InstanceId,
}
