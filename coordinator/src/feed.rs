//! What viewers are told: each change encoded once for all who read the same view.
//!
//! One task, the [`publisher`], sends the same bytes to everybody. A viewer that falls behind is told
//! to start again, so nothing is kept for it; one that comes back within a minute goes on where it was,
//! from what is [`recent`]. Without viewers only the chronicle is kept.

mod chronicle;
mod frame;
mod publisher;
mod recent;
mod scene;

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use ollama_coordinator_common::id::InstanceId;
use ollama_coordinator_common::protocol::event::{FleetFigures, Happening};
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, Receiver};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::History;
use crate::registry::Registry;

use chronicle::Chronicle;
pub use chronicle::Refusal;
use frame::{Frame, SnapshotHead};
use publisher::Publisher;
use recent::Recent;

/// How many publications a viewer may fall behind.
const BACKLOG: usize = 32;

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

/// How far a viewer has come: the id of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    instance: InstanceId,
    seq: u64,
}

/// A handle to the one feed of this process.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    registry: Registry,
    history: History,
    full: broadcast::Sender<Bytes>,
    brief: broadcast::Sender<Bytes>,
    /// Locked while a publication is sent.
    published: Mutex<Published>,
    chronicle: Mutex<Chronicle>,
}

/// How long what a snapshot shows may be older than what was published.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// What was published last.
#[derive(Default)]
struct Published {
    /// The number of the last frame.
    seq: u64,
    /// Grows with each publication that told of more than the time, and when that is not known.
    news: u64,
    /// When it grew.
    news_at: Option<Instant>,
    /// What was told of the fleet.
    figures: FleetFigures,
    full: Recent,
    brief: Recent,
}

/// A stream of events from where the viewer is.
#[derive(Debug)]
pub struct Subscription {
    /// Everything as one event, or what the viewer has missed.
    pub beginning: Vec<Bytes>,
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
            published: Mutex::default(),
            chronicle: Mutex::default(),
        }))
    }

    /// Returns everything as it is, or what has been published since `seen` if all of that is there,
    /// and follows what comes after it.
    pub fn subscribe(&self, view: View, seen: Option<Position>) -> Subscription {
        let instance = self.0.registry.instance_id();
        let seen = seen.filter(|seen| seen.instance == instance);
        let (frames, position, missed) = {
            let mut published = self.0.published.lock();
            let frames = self.sender(view).subscribe();
            let seq = published.seq;
            let recent = published.recent(view);
            recent.read(Instant::now());
            let missed = seen.and_then(|seen| recent.since(seen.seq, seq));
            (frames, Position { instance, seq }, missed)
        };
        let beginning = missed.unwrap_or_else(|| {
            let [head, agents, tail] = self.snapshot_at(view, position.seq);
            let before = format!("id: {position}\ndata: ");
            vec![before.into(), head, agents, tail, "\n\n".into()]
        });
        Subscription { beginning, frames }
    }

    /// Returns everything as it is, as the event with which a stream would begin.
    pub fn snapshot(&self, view: View) -> [Bytes; 3] {
        let seq = self.0.published.lock().seq;
        self.snapshot_at(view, seq)
    }

    /// Returns a name for what a snapshot shows by now, which is the same while viewers would be told
    /// of nothing but the time; `None`: just now something has changed. Whoever asks counts as a
    /// viewer for a minute.
    pub fn snapshot_tag(&self, view: View) -> Option<String> {
        let now = Instant::now();
        let mut published = self.0.published.lock();
        published.recent(view).read(now);
        let is_settled = published
            .news_at
            .is_some_and(|at| now - at >= SETTLED_AFTER);
        let instance = self.0.registry.instance_id();
        is_settled.then(|| format!("W/\"{instance}/{}\"", published.news))
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
        Publisher::new(self).run(token).await
    }

    fn sender(&self, view: View) -> &broadcast::Sender<Bytes> {
        match view {
            View::Full => &self.0.full,
            View::Brief => &self.0.brief,
        }
    }

    fn figures(&self) -> FleetFigures {
        FleetFigures {
            viewers: self.0.full.receiver_count() + self.0.brief.receiver_count(),
            ..self.0.history.fleet_now()
        }
    }

    fn snapshot_at(&self, view: View, seq: u64) -> [Bytes; 3] {
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

    /// Returns whether anybody looks, or has looked just now. Where nobody does, what happens is not
    /// published, so nobody may go on from there.
    fn is_watched(&self, now: Instant) -> bool {
        let mut published = self.0.published.lock();
        let mut is_watched = false;
        for view in [View::Full, View::Brief] {
            let is_read = self.sender(view).receiver_count() > 0;
            let recent = published.recent(view);
            if is_read {
                recent.read(now);
            }
            is_watched |= recent.is_wanted(now);
        }
        if !is_watched {
            published.seq += 1;
            published.note_news(now);
        }
        is_watched
    }

    /// Sends every viewer for a new snapshot.
    fn start_again(&self) {
        let mut published = self.0.published.lock();
        for view in [View::Full, View::Brief] {
            published.recent(view).clear();
            // Perhaps nobody reads this view.
            drop(self.sender(view).send(RESYNC));
        }
        published.seq += 1;
        published.note_news(Instant::now());
    }

    /// What has changed before this moment may not have been published.
    fn begin_scene(&self) {
        self.0.published.lock().note_news(Instant::now());
    }

    /// Encodes the frames once for each view that is read, and sends them as one piece.
    fn publish(&self, frames: &[Frame<'_>]) {
        let instance = self.0.registry.instance_id();
        let now = Instant::now();
        let mut published = self.0.published.lock();
        let seq = published.seq;
        for view in [View::Full, View::Brief] {
            let recent = published.recent(view);
            if !recent.is_wanted(now) {
                continue;
            }
            let piece = frame::encode(frames, view, &mut Position { instance, seq });
            recent.push(seq, piece.clone());
            // The last viewer may have gone.
            drop(self.sender(view).send(piece));
        }
        published.seq += frames.len() as u64;
        if published.is_news(frames) {
            published.note_news(now);
        }
    }
}

impl Published {
    fn note_news(&mut self, now: Instant) {
        self.news += 1;
        self.news_at = Some(now);
    }

    /// Returns whether frames tell of more than the time.
    fn is_news(&mut self, frames: &[Frame<'_>]) -> bool {
        let mut is_news = false;
        for frame in frames {
            is_news |= match frame {
                Frame::Tick { fleet, loads, .. } => {
                    let before = std::mem::replace(&mut self.figures, *fleet);
                    !loads.is_empty() || before != *fleet
                }
                Frame::AgentChanged { .. }
                | Frame::AgentRemoved { .. }
                | Frame::Happened { .. } => true,
            };
        }
        is_news
    }

    fn recent(&mut self, view: View) -> &mut Recent {
        match view {
            View::Full => &mut self.full,
            View::Brief => &mut self.brief,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.instance, self.seq)
    }
}

/// The text is not the id of an event.
#[derive(Debug, thiserror::Error)]
#[error("not the id of an event")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (instance, seq) = text.split_once('/').ok_or(NotAPosition)?;
        Ok(Self {
            instance: instance.parse().map_err(|_no_id| NotAPosition)?,
            seq: seq.parse().map_err(|_no_number| NotAPosition)?,
        })
    }
}
