//! The task that publishes: it gathers what happens and sends it on four times a second, and the
//! load once a second.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use chrono::Utc;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::AgentLoad;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Feed;
use super::frame::Frame;
use super::scene::Scene;
use crate::registry::snapshot::AgentSnapshot;
use crate::registry::transition::Transition;

/// How often changes are published.
const FLUSH: Duration = Duration::from_millis(250);
/// The load is published with every so many of them.
const FLUSHES_PER_TICK: u32 = 4;
/// More changes than this at once are a new snapshot.
const MAX_CHANGES: usize = 2_000;
const MAX_LOADS: usize = 1_000;

/// What has changed since the last publication; `None`: the agent was forgotten.
type Changes = BTreeMap<AgentId, Option<AgentSnapshot>>;

/// What is to be published, and what was.
pub(super) struct Publisher {
    feed: Feed,
    changes: Changes,
    /// Some of the changes were missed.
    is_lost: bool,
    /// What viewers have been shown; `None`: nobody looks.
    scene: Option<Scene>,
}

impl Publisher {
    pub(super) fn new(feed: Feed) -> Self {
        Self {
            feed,
            changes: Changes::new(),
            is_lost: false,
            scene: None,
        }
    }

    /// Publishes until `token` is cancelled.
    pub(super) async fn run(mut self, token: CancellationToken) -> Result<(), Infallible> {
        let mut transitions = self.feed.0.registry.subscribe();
        let mut flush = tokio::time::interval(FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut flushes = 0_u32;
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                heard = transitions.recv() => match heard {
                    Ok(transition) => {
                        self.feed.0.chronicle.lock().note(&transition, Utc::now());
                        self.add(transition);
                    }
                    Err(RecvError::Lagged(_)) => self.is_lost = true,
                    Err(RecvError::Closed) => return Ok(()),
                },
                _ = flush.tick() => {
                    flushes = flushes.wrapping_add(1);
                    self.flush(flushes.is_multiple_of(FLUSHES_PER_TICK));
                }
            }
        }
    }

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

    fn flush(&mut self, is_tick: bool) {
        let happened = self.feed.0.chronicle.lock().take_news();
        let changes = std::mem::take(&mut self.changes);
        let is_lost = std::mem::take(&mut self.is_lost);
        if !self.feed.is_watched(Instant::now()) {
            self.scene = None;
            return;
        }
        if is_lost || changes.len() > MAX_CHANGES {
            self.scene = None;
            self.feed.start_again();
            return;
        }
        let loads = self.update_scene(&changes, is_tick);
        let scene = self.scene.get_or_insert_default();
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
                fleet: self.feed.figures(),
                loads: &loads,
            });
        }
        if !frames.is_empty() {
            self.feed.publish(&frames);
        }
    }

    /// Makes the scene for the first viewer, or finds whose load has changed since.
    fn update_scene(&mut self, changes: &Changes, is_tick: bool) -> Vec<AgentLoad> {
        if let Some(scene) = &mut self.scene {
            for (id, change) in changes {
                if change.is_none() {
                    scene.forget(*id);
                }
            }
            if !is_tick {
                return Vec::new();
            }
            return scene.loads(&self.feed.0.registry.snapshot(), MAX_LOADS);
        }
        let mut scene = Scene::default();
        for agent in self.feed.0.registry.snapshot() {
            if !changes.contains_key(&agent.id()) {
                scene.show(&agent);
            }
        }
        self.scene = Some(scene);
        self.feed.begin_scene();
        Vec::new()
    }
}
