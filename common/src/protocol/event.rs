//! `GET /api/events`: what happens, as it happens.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::view::AgentView;
use crate::id::{AgentId, InstanceId};

/// One frame of the event stream. Readers ignore types and fields they do not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// Everything, at the start of each stream.
    Snapshot {
        /// Which coordinator run this is.
        instance_id: InstanceId,
        /// All agents, sorted by id.
        agents: Vec<AgentView>,
    },
    /// An agent is new or has changed.
    AgentChanged {
        /// The whole agent as it is now.
        agent: Box<AgentView>,
    },
    /// An agent was forgotten.
    AgentRemoved {
        /// Its id.
        id: AgentId,
    },
    /// The stream lives.
    Tick {
        /// The coordinator's clock.
        server_time: DateTime<Utc>,
    },
    /// Events were lost because this reader was too slow: the stream ends, connect again.
    Resync,
}
