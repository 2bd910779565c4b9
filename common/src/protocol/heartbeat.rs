//! `POST /api/agents/{id}/heartbeat`: renewing a lease.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::pause::Paused;
use super::register::{CoordinatorIdentity, LeaseTerms};
use super::runtime::RuntimeReport;
use super::system::Metrics;
use super::view::{AgentStatus, UnroutableReason};
use crate::id::SessionId;

/// Renews the lease. Every field is optional: an empty object, or no body at all, renews too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatRequest {
    /// This run of the agent's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// The epoch granted at registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// Counts the heartbeats of this session; a lower one than the last is ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// True while the agent finishes its work before it leaves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Present while the machine's owner wants it to take no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// The runtime; sent when it differs from what was last acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeReport>,
    /// The machine's load; sent now and then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

/// The lease is renewed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeartbeatResponse {
    /// Always `online` after a heartbeat.
    pub status: AgentStatus,
    /// Whether the coordinator sends requests to this agent.
    pub routable: bool,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<UnroutableReason>,
    /// The agent's epoch.
    pub epoch: u64,
    /// When the next heartbeat is due.
    pub lease: LeaseTerms,
    /// Which coordinator run answered.
    pub coordinator: CoordinatorIdentity,
}
