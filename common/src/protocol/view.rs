//! The agent document: how an agent is shown in lists, by id and in events.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::runtime::{LoadedModel, Model, RuntimeKind, RuntimeStatus};
use super::system::{Metrics, SystemInfo};
use super::tunnel::LinkKind;
use crate::id::AgentId;

/// Whether an agent's lease runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    /// It proves in time that it is alive.
    Online,
    /// It said goodbye or has been silent for longer than its lease.
    Offline,
}

/// Why an agent gets no requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnroutableReason {
    /// It is offline.
    Offline,
    /// It is being emptied.
    Draining,
    /// Its owner has paused it, on the machine itself.
    Paused,
    /// Its address has not been tried yet.
    Unverified,
    /// Nothing answered the coordinator at its address.
    Unreachable,
    /// Its tunnel is not up.
    NoTunnel,
    /// It says that its runtime does not answer.
    RuntimeNotAnswering,
    /// It failed on requests and gets none for a while.
    Ejected,
}

impl fmt::Display for UnroutableReason {
    /// Writes the code, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What is unusual about an agent that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentWarning {
    /// It has been silent for longer than its lease, but its runtime answers the coordinator.
    HeartbeatsMissing,
}

/// One agent as everybody sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentView {
    /// Its id.
    pub id: AgentId,
    /// What the machine calls itself.
    pub machine_name: String,
    /// What the operator calls it, when they named it.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Where its runtime is reached.
    #[schema(value_type = String)]
    pub ip_address: IpAddr,
    /// The runtime's port.
    pub port: u16,
    /// How its runtime is reached.
    #[serde(default)]
    pub link: LinkKind,
    /// Whether its lease runs.
    pub status: AgentStatus,
    /// Whether it may get requests now.
    pub routable: bool,
    /// Why not.
    #[serde(default)]
    pub reason: Option<UnroutableReason>,
    /// What is unusual about it, though it works.
    #[serde(default)]
    pub warning: Option<AgentWarning>,
    /// Whether it is being emptied.
    pub draining: bool,
    /// When the pause that its owner made ends by itself, if it does.
    #[serde(default)]
    pub paused_until: Option<DateTime<Utc>>,
    /// The runtime's version.
    #[serde(default)]
    pub ollama_version: Option<String>,
    /// The runtime.
    pub runtime: RuntimeView,
    /// The models it can serve.
    pub models: Vec<Model>,
    /// The models in its memory.
    pub loaded_models: Vec<LoadedModel>,
    /// How many requests it serves at once, when known.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// The operator's own figure, which then is the capacity; absent: the agent's holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_override: Option<u32>,
    /// Requests it is serving for this coordinator now.
    pub in_flight: u32,
    /// Its latest load figures.
    #[serde(default)]
    pub metrics: Option<Metrics>,
    /// The operator's labels.
    pub labels: BTreeMap<String, String>,
    /// The operator's notes.
    #[serde(default)]
    pub notes: Option<String>,
    /// Its machine.
    #[serde(default)]
    pub system_info: Option<SystemInfo>,
    /// The agent's own version.
    #[serde(default)]
    pub agent_version: Option<String>,
    /// Grows with each accepted session.
    pub epoch: u64,
    /// The id it had before it learnt that another process uses that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<AgentId>,
    /// When it first registered.
    pub registered_at: DateTime<Utc>,
    /// When it was last heard of.
    pub last_seen: DateTime<Utc>,
}

/// The runtime in an [`AgentView`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeView {
    /// Which API it speaks.
    pub kind: RuntimeKind,
    /// Whether it answers its agent.
    pub status: RuntimeStatus,
    /// Its version, when known.
    #[serde(default)]
    pub version: Option<String>,
}

/// `PATCH /api/agents/{id}`: what the operator may change. An absent field stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchAgentRequest {
    /// A name of the operator's choice; empty takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// All labels, replacing the ones before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Notes; empty takes them away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// True stops new requests to the agent, false allows them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// How many requests it is given at once, 0 to 10000; 0 leaves it to what the agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 10_000)]
    pub capacity: Option<u32>,
}
