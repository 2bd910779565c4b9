//! Events as they are sent, borrowed from what they tell of.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::{AgentId, InstanceId};
use ollama_coordinator_common::protocol::event::{AgentLoad, FleetFigures, Happening};
use serde::Serialize;
use serde_json::value::RawValue;

use super::View;
use crate::registry::snapshot::{AgentSnapshot, Brief};

/// An event, borrowed.
pub(super) enum Frame<'a> {
    AgentChanged {
        agent: &'a AgentSnapshot,
    },
    AgentRemoved {
        id: AgentId,
    },
    Happened {
        happening: &'a Happening,
    },
    Tick {
        server_time: DateTime<Utc>,
        fleet: FleetFigures,
        loads: &'a [AgentLoad],
    },
}

impl Frame<'_> {
    /// Encodes it with its number.
    pub(super) fn encode(&self, view: View, seq: u64) -> String {
        let agent = match (self, view) {
            (Self::AgentChanged { agent }, View::Full) => Some(raw(agent)),
            (Self::AgentChanged { agent }, View::Brief) => Some(raw(&Brief(agent))),
            (_, _) => None,
        };
        let outgoing = match self {
            Self::AgentChanged { .. } => Outgoing::AgentChanged { seq, agent },
            Self::AgentRemoved { id } => Outgoing::AgentRemoved { seq, id: *id },
            Self::Happened { happening } => Outgoing::Happened { seq, happening },
            Self::Tick {
                server_time,
                fleet,
                loads,
            } => Outgoing::Tick {
                seq,
                server_time: *server_time,
                fleet: *fleet,
                loads,
            },
        };
        serde_json::to_string(&outgoing).expect("an event serialises")
    }
}

fn raw(document: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(document).expect("an agent document serialises")
}

/// A snapshot without its agents, which are encoded already.
#[derive(Serialize)]
pub(super) struct SnapshotHead {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) seq: u64,
    pub(super) instance_id: InstanceId,
    pub(super) version: &'static str,
    pub(super) server_time: DateTime<Utc>,
    pub(super) fleet: FleetFigures,
}

impl SnapshotHead {
    /// Encodes it up to where the agents begin.
    pub(super) fn open(&self) -> Bytes {
        let mut json = serde_json::to_string(self).expect("an event serialises");
        json.pop();
        json.push_str(",\"agents\":");
        json.into()
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Outgoing<'a> {
    AgentChanged {
        seq: u64,
        agent: Option<Box<RawValue>>,
    },
    AgentRemoved {
        seq: u64,
        id: AgentId,
    },
    Happened {
        seq: u64,
        happening: &'a Happening,
    },
    Tick {
        seq: u64,
        server_time: DateTime<Utc>,
        fleet: FleetFigures,
        loads: &'a [AgentLoad],
    },
}
