//! `GET /api/events`: what happens, as it happens.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::system::Metrics;
use super::view::AgentView;
use crate::id::{AgentId, InstanceId};

/// One frame of the event stream. Readers ignore types and fields they do not know.
///
/// `seq` grows by one from frame to frame; a reader that misses one connects again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Everything, at the start of each stream.
    Snapshot {
        /// The number of the last frame that this covers.
        seq: u64,
        /// Which coordinator run this is.
        instance_id: InstanceId,
        /// The coordinator's version.
        version: String,
        /// The coordinator's clock.
        server_time: DateTime<Utc>,
        /// What the fleet is doing.
        fleet: FleetFigures,
        /// All agents, sorted by id.
        agents: Vec<AgentView>,
    },
    /// An agent is new or has changed.
    AgentChanged {
        /// The number of this frame.
        seq: u64,
        /// The whole agent as it is now.
        agent: Box<AgentView>,
    },
    /// An agent was forgotten.
    AgentRemoved {
        /// The number of this frame.
        seq: u64,
        /// Its id.
        id: AgentId,
    },
    /// Something happened that an operator may want to know.
    Happened {
        /// The number of this frame.
        seq: u64,
        /// What.
        happening: Happening,
    },
    /// Once a second: the stream lives, and this is the load.
    Tick {
        /// The number of this frame.
        seq: u64,
        /// The coordinator's clock.
        server_time: DateTime<Utc>,
        /// What the fleet is doing.
        fleet: FleetFigures,
        /// The agents whose load has changed; at most a thousand, the others follow.
        loads: Vec<AgentLoad>,
    },
    /// Events were lost because this reader was too slow: the stream ends, connect again.
    Resync,
}

/// What the fleet as a whole is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetFigures {
    /// Requests being served.
    pub in_flight: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Requests that were answered or refused, per minute, over the last minute.
    pub requests_per_minute: f32,
    /// Those of them that failed or were refused.
    pub failures_per_minute: f32,
    /// Tokens of answers that have ended, per second, over the last minute.
    pub tokens_per_second: f32,
    /// Within how many milliseconds of their arrival 95 % of the streamed answers of the last minute
    /// began; absent when there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_p95_ms: Option<f32>,
    /// How many read events.
    pub viewers: usize,
}

/// The load of one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AgentLoad {
    /// The agent.
    pub id: AgentId,
    /// Requests it is serving.
    pub in_flight: u32,
    /// Its latest load figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Metrics>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Happening {
    /// Grows by one from happening to happening of one coordinator run.
    pub number: u64,
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub kind: HappeningKind,
    /// To which agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// What it was called then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// Where it is, or where the refused one called from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// A code that says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many agents it is about, if many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<usize>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HappeningKind {
    /// An agent registered for the first time.
    Joined,
    /// An agent is heard of again.
    Returned,
    /// An agent was silent for too long.
    Expired,
    /// An agent was silent for too long, but its runtime answers: it stays online for now.
    HeartbeatsMissing,
    /// An agent said goodbye.
    Left,
    /// An agent gets requests.
    Routable,
    /// An agent gets no requests; `reason` says why.
    NotRoutable,
    /// An agent was forgotten.
    Removed,
    /// A registration was refused; `reason` is the error's code.
    Refused,
    /// Two agents front one runtime, at `address`.
    EndpointShared,
    /// Most of the fleet fell silent at once.
    IsolationSuspected,
}
