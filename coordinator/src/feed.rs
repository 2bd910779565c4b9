//! What viewers are told: each change encoded once for all who read the same view.
//!
//! One task gathers what happens and publishes it four times a second, and the load once a second.
//! A viewer that falls behind is told to start again, so nothing is kept for it. Without viewers
//! only the chronicle is kept.

mod chronicle;
mod frame;
mod scene;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::{AgentLoad, FleetFigures, Happening};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::history::History;
use crate::registry::Registry;
use crate::registry::snapshot::AgentSnapshot;
use crate::registry::transition::Transition;

use chronicle::Chronicle;
pub use chronicle::Refusal;
use frame::{Frame, SnapshotHead};
use scene::Scene;

/// How often changes are published.
const FLUSH: Duration = Duration::from_millis(250);
/// The load is published with every so many of them.
const FLUSHES_PER_TICK: u32 = 4;
/// How many publications a viewer may fall behind.
const BACKLOG: usize = 32;
/// More changes than this at once are a new snapshot.
const MAX_CHANGES: usize = 2_000;
const MAX_LOADS: usize = 1_000;

/// The event that tells a viewer to start again.
pub const RESYNC: Bytes = Bytes::from_static(b"data: {\"type\":\"resync\"}\n\n");

/// How much of each agent a viewer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The whole document.
    Full,
    /// Without what only a page about it needs.
    Brief,
}

/// A handle to the one feed of this process.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    registry: Registry,
    history: History,
    full: broadcast::Sender<Bytes>,
    brief: broadcast::Sender<Bytes>,
    /// The number of the last frame; locked while a publication is sent.
    seq: Mutex<u64>,
    chronicle: Mutex<Chronicle>,
}

/// A stream of events from its beginning.
#[derive(Debug)]
pub struct Subscription {
    /// Everything, as one event.
    pub snapshot: Vec<Bytes>,
    /// What follows.
    pub frames: Receiver<Bytes>,
}

impl Feed {
    /// Makes the feed of what happens in `registry`.
    pub fn new(registry: Registry, history: History) -> Self {
        Self(Arc::new(Shared {
            registry,
            history,
            full: broadcast::Sender::new(BACKLOG),
            brief: broadcast::Sender::new(BACKLOG),
            seq: Mutex::new(0),
            chronicle: Mutex::default(),
        }))
    }

    /// Returns everything as it is, and follows what comes after it.
    pub fn subscribe(&self, view: View) -> Subscription {
        let (frames, seq) = {
            let seq = self.0.seq.lock();
            (self.sender(view).subscribe(), *seq)
        };
        let [head, agents, tail] = self.snapshot_after(view, seq);
        let head = Bytes::from([b"data: ", &*head].concat());
        let tail = Bytes::from([&*tail, b"\n\n"].concat());
        Subscription {
            snapshot: vec![head, agents, tail],
            frames,
        }
    }

    /// Returns everything as it is, as the event with which a stream would begin.
    pub fn snapshot(&self, view: View) -> [Bytes; 3] {
        let seq = *self.0.seq.lock();
        self.snapshot_after(view, seq)
    }

    /// Returns what happened last, newest first.
    pub fn happenings(&self, most: usize) -> Vec<Happening> {
        self.0.chronicle.lock().latest(most)
    }

    /// Notes that an agent was refused.
    pub fn refused(&self, refusal: Refusal) {
        self.0.chronicle.lock().refused(refusal, Utc::now());
    }

    /// Publishes until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) -> Result<(), Infallible> {
        let mut transitions = self.0.registry.subscribe();
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending = Pending::default();
        let mut flushes = 0_u32;
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                heard = transitions.recv() => match heard {
                    Ok(transition) => {
                        self.0.chronicle.lock().note(&transition, Utc::now());
                        pending.add(transition);
                    }
                    Err(RecvError::Lagged(_)) => pending.is_lost = true,
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = flush.tick() => {
                    flushes = flushes.wrapping_add(1);
                    self.flush(&mut pending, flushes.is_multiple_of(FLUSHES_PER_TICK));
                }
            }
        }
    }

    fn sender(&self, view: View) -> &broadcast::Sender<Bytes> {
        match view {
            View::Full => &self.0.full,
            View::Brief => &self.0.brief,
        }
    }

    fn viewers(&self) -> usize {
        self.0.full.receiver_count() + self.0.brief.receiver_count()
    }

    fn figures(&self) -> FleetFigures {
        FleetFigures {
            viewers: self.viewers(),
            ..self.0.history.fleet_now()
        }
    }

    fn snapshot_after(&self, view: View, seq: u64) -> [Bytes; 3] {
        let agents = match view {
            View::Full => self.0.registry.list_json(),
            View::Brief => self.0.registry.brief_json(),
        };
        let head = SnapshotHead {
            kind: "snapshot",
            seq,
            instance_id: self.0.registry.instance_id(),
            version: env!("CARGO_PKG_VERSION"),
            server_time: Utc::now(),
            fleet: self.figures(),
        };
        [head.open(), agents, Bytes::from_static(b"}")]
    }

    fn flush(&self, pending: &mut Pending, is_tick: bool) {
        let happened = self.0.chronicle.lock().take_news();
        if self.viewers() == 0 {
            *pending = Pending::default();
            return;
        }
        let changes = std::mem::take(&mut pending.changes);
        if std::mem::take(&mut pending.is_lost) || changes.len() > MAX_CHANGES {
            pending.scene = None;
            self.start_again();
            return;
        }
        let loads = self.update_scene(pending, &changes, is_tick);
        let scene = pending.scene.get_or_insert_default();
        let mut frames = Vec::new();
        for (id, change) in &changes {
            match change {
                None => frames.push(Frame::AgentRemoved { id: *id }),
                Some(agent) => {
                    if scene.show(agent) {
                        frames.push(Frame::AgentChanged { agent });
                    }
                }
            }
        }
        let happened = happened.iter();
        frames.extend(happened.map(|happening| Frame::Happened { happening }));
        if is_tick {
            frames.push(Frame::Tick {
                server_time: Utc::now(),
                fleet: self.figures(),
                loads: &loads,
            });
        }
        if !frames.is_empty() {
            self.publish(&frames);
        }
    }

    /// Makes the scene for the first viewer, or finds whose load has changed since.
    fn update_scene(
        &self,
        pending: &mut Pending,
        changes: &Changes,
        is_tick: bool,
    ) -> Vec<AgentLoad> {
        if let Some(scene) = &mut pending.scene {
            for (id, change) in changes {
                if change.is_none() {
                    scene.forget(*id);
                }
            }
            if !is_tick {
                return Vec::new();
            }
            return scene.loads(&self.0.registry.snapshot(), MAX_LOADS);
        }
        let mut scene = Scene::default();
        for agent in self.0.registry.snapshot() {
            if !changes.contains_key(&agent.id()) {
                scene.show(&agent);
            }
        }
        pending.scene = Some(scene);
        Vec::new()
    }

    /// Sends every viewer for a new snapshot.
    fn start_again(&self) {
        let mut seq = self.0.seq.lock();
        for sender in [&self.0.full, &self.0.brief] {
            // Perhaps nobody reads this view.
            drop(sender.send(RESYNC));
        }
        *seq += 1;
    }

    /// Encodes the frames once for each view that is read, and sends them as one piece.
    fn publish(&self, frames: &[Frame<'_>]) {
        let mut seq = self.0.seq.lock();
        for view in [View::Full, View::Brief] {
            let sender = self.sender(view);
            if sender.receiver_count() == 0 {
                continue;
            }
            let mut text = String::new();
            for (frame, number) in frames.iter().zip(*seq + 1..) {
                text.push_str("data: ");
                text.push_str(&frame.encode(view, number));
                text.push_str("\n\n");
            }
            // The last viewer may have gone just now.
            drop(sender.send(text.into()));
        }
        *seq += frames.len() as u64;
    }
}

type Changes = BTreeMap<AgentId, Option<AgentSnapshot>>;

/// What has happened since the last publication, and what viewers have been shown until then.
#[derive(Default)]
struct Pending {
    /// `None`: forgotten.
    changes: Changes,
    /// Some of it was missed.
    is_lost: bool,
    /// `None`: nobody looks.
    scene: Option<Scene>,
}

impl Pending {
    fn add(&mut self, transition: Transition) {
        let (id, agent) = match transition {
            Transition::Joined(agent)
            | Transition::Returned(agent)
            | Transition::Expired { agent, .. }
            | Transition::HeartbeatsMissing { agent, .. }
            | Transition::Left(agent)
            | Transition::RoutabilityChanged(agent)
            | Transition::Changed(agent) => (agent.id(), Some(agent)),
            Transition::Removed(id) => (id, None),
            Transition::EndpointShared { .. } | Transition::IsolationSuspected { .. } => return,
        };
        self.changes.insert(id, agent);
    }
}
