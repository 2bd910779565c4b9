//! The load of the last day, in memory: of the fleet and of each agent, as finely as fits.

mod archive;
mod series;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::FleetFigures;
use ollama_coordinator_common::protocol::history::{HistoryView, Resolution};
use ollama_coordinator_common::protocol::view::UnroutableReason;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;
use crate::proxy::story::times::TimesSeen;
use crate::registry::Registry;
use crate::registry::snapshot::AgentSnapshot;

use archive::{Archive, Moment, Sample};
pub use archive::{Span, Tier};

/// How often the fleet is looked at.
const STEP: Duration = Duration::from_secs(2);
/// Over how long a time rates are averaged.
const WINDOW: Duration = Duration::from_mins(1);

/// A handle to the one history of this process.
#[derive(Clone)]
pub struct History(Arc<Shared>);

struct Shared {
    archive: Mutex<Archive>,
    now: Mutex<FleetFigures>,
}

impl History {
    /// Makes an empty history that takes about so many bytes at most.
    pub fn new(max_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            archive: Mutex::new(Archive::new(max_bytes)),
            now: Mutex::default(),
        }))
    }

    /// Returns what the fleet was doing at the last look.
    pub fn fleet_now(&self) -> FleetFigures {
        *self.0.now.lock()
    }

    /// Returns how finely agents are remembered; `None`: there are too many of them.
    pub fn tier(&self) -> Option<Tier> {
        self.0.archive.lock().tier()
    }

    /// Returns the load of the fleet.
    pub fn of_fleet(&self, resolution: Resolution) -> HistoryView {
        self.0.archive.lock().of_fleet(resolution)
    }

    /// Returns the load of one agent.
    pub fn of_agent(&self, id: AgentId, resolution: Resolution) -> HistoryView {
        self.0.archive.lock().of_agent(id, resolution)
    }

    /// Looks every two seconds until `token` is cancelled.
    pub async fn run(
        self,
        registry: Registry,
        proxy: Proxy,
        token: CancellationToken,
    ) -> Result<(), Infallible> {
        let mut step = tokio::time::interval(STEP);
        step.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut counters = VecDeque::new();
        loop {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                _ = step.tick() => self.look(&registry, &proxy, &mut counters),
            }
        }
    }

    fn look(&self, registry: &Registry, proxy: &Proxy, counters: &mut VecDeque<Counters>) {
        let (counted, tokens) = Counters::read(proxy);
        let mono = counted.at;
        let figures = rates(counters, counted, proxy);
        *self.0.now.lock() = figures;
        let known = registry.counts().known;
        let unroutable: usize = registry.unroutable().values().sum();
        let moment = Moment {
            mono,
            wall: Utc::now(),
        };
        let fleet = series::fleet(&figures, known.saturating_sub(unroutable));
        let samples = || {
            let agents = registry.snapshot();
            agents.iter().map(|agent| sample(agent, &tokens)).collect()
        };
        let mut archive = self.0.archive.lock();
        archive.record(moment, fleet, known, samples);
    }
}

/// Counts since the start, at one moment.
#[derive(Debug, Clone)]
struct Counters {
    at: Instant,
    requests: u64,
    failures: u64,
    tokens: u64,
    first_tokens: TimesSeen,
}

impl Counters {
    /// Reads the counts, and the tokens of each agent.
    fn read(proxy: &Proxy) -> (Self, BTreeMap<AgentId, u64>) {
        let figures = proxy.storybook().counted();
        let refused: u64 = figures.refusals().values().sum();
        let (mut requests, mut failures, mut tokens) = (refused, refused, 0);
        let mut by_agent: BTreeMap<AgentId, u64> = BTreeMap::new();
        for model in figures.models() {
            for (agent, pair) in model.pairs() {
                for (_, class, count) in pair.requests() {
                    requests += count;
                    failures += if class == "5xx" { count } else { 0 };
                }
                let [_, (_, completion)] = pair.tokens();
                tokens += completion;
                if let Some(agent) = agent {
                    *by_agent.entry(agent).or_default() += completion;
                }
            }
        }
        let at = Instant::now();
        let counters = Self {
            at,
            requests,
            failures,
            tokens,
            first_tokens: figures.first_tokens.read(),
        };
        (counters, by_agent)
    }
}

/// Compares the counts with those of a minute ago. They fall when an agent is forgotten.
fn rates(past: &mut VecDeque<Counters>, now: Counters, proxy: &Proxy) -> FleetFigures {
    while past.len() > 1 && now.at - past[0].at > WINDOW {
        past.pop_front();
    }
    let first = past.front().unwrap_or(&now);
    let seconds = (now.at - first.at).max(STEP).as_secs_f32();
    let totals = proxy.balancer().totals();
    let figures = FleetFigures {
        in_flight: totals.in_flight,
        queued: totals.queued,
        requests_per_minute: per_second(first.requests, now.requests, seconds) * 60.0,
        failures_per_minute: per_second(first.failures, now.failures, seconds) * 60.0,
        tokens_per_second: per_second(first.tokens, now.tokens, seconds),
        first_token_p95_ms: (now.first_tokens).quantile_since(&first.first_tokens, 0.95),
        viewers: 0,
    };
    past.push_back(now);
    figures
}

#[expect(clippy::cast_precision_loss, reason = "a rate that is drawn")]
fn per_second(before: u64, now: u64, seconds: f32) -> f32 {
    now.saturating_sub(before) as f32 / seconds
}

fn sample(agent: &AgentSnapshot, tokens: &BTreeMap<AgentId, u64>) -> Sample {
    Sample {
        id: agent.id(),
        is_online: agent.reason != Some(UnroutableReason::Offline),
        tokens: tokens.get(&agent.id()).copied().unwrap_or(0),
        row: series::agent(agent),
    }
}
