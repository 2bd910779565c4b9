//! Events as they are sent, borrowed from what they tell of.

use std::io::Write as _;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::{AgentId, InstanceId};
use ollama_coordinator_common::protocol::event::{AgentLoad, FleetFigures, Happening};
use serde::Serialize;

use super::{Position, View};
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

/// Encodes frames that follow `position` as one piece, and moves the position to its end.
///
/// Only the last frame has an id: a viewer that comes back has seen whole pieces.
pub(super) fn encode(frames: &[Frame<'_>], view: View, position: &mut Position) -> Bytes {
    let mut text = Vec::new();
    for (at, frame) in frames.iter().enumerate() {
        position.seq += 1;
        if at + 1 == frames.len() {
            writeln!(text, "id: {position}").expect("memory takes it");
        }
        text.extend_from_slice(b"data: ");
        let outgoing = frame.outgoing(view, position.seq);
        serde_json::to_writer(&mut text, &outgoing).expect("an event serialises");
        text.extend_from_slice(b"\n\n");
    }
    text.into()
}

impl<'a> Frame<'a> {
    fn outgoing(&self, view: View, seq: u64) -> Outgoing<'a> {
        match *self {
            Self::AgentChanged { agent } => {
                let agent = match view {
                    View::Full => Shown::Full(agent),
                    View::Brief => Shown::Brief(Brief(agent)),
                };
                Outgoing::AgentChanged { seq, agent }
            }
            Self::AgentRemoved { id } => Outgoing::AgentRemoved { seq, id },
            Self::Happened { happening } => Outgoing::Happened { seq, happening },
            Self::Tick {
                server_time,
                fleet,
                loads,
            } => Outgoing::Tick {
                seq,
                server_time,
                fleet,
                loads,
            },
        }
    }
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
        agent: Shown<'a>,
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

#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Full(&'a AgentSnapshot),
    Brief(Brief<'a>),
}
