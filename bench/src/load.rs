//! Load: closed loop, where each connection sends its next request when the last is answered, and
//! at a fixed rate, whatever the answers take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::client::Connection;

/// How much load, bounded in time and in number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Connections, opened before the clock starts.
    pub(crate) connections: usize,
    /// No request begins later than this.
    pub(crate) lasting: Duration,
    /// No more requests than this in all.
    pub(crate) most: u64,
    /// The time between two requests of one connection; zero: as fast as it goes.
    pub(crate) pause: Duration,
}

impl Load {
    /// As much as `connections` carry in this time.
    pub(crate) fn full(connections: usize, lasting: Duration) -> Self {
        Self {
            connections,
            lasting,
            most: u64::MAX,
            pause: Duration::ZERO,
        }
    }

    /// So many requests, as far as two minutes suffice.
    pub(crate) fn count(connections: usize, most: u64) -> Self {
        Self {
            most,
            ..Self::full(connections, Duration::from_mins(2))
        }
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Requests that succeeded.
    pub(crate) succeeded: u64,
    /// Requests that did not.
    pub(crate) failed: u64,
    /// Why one of them did not.
    failure: Option<String>,
    /// How long each took.
    pub(crate) latencies: Vec<Duration>,
    /// How long all of it took.
    pub(crate) took: Duration,
}

impl Outcome {
    /// Returns successes per second.
    pub(crate) fn per_second(&self) -> f64 {
        count(self.succeeded) / self.took.as_secs_f64().max(1e-9)
    }

    /// Returns `cost` per success, in microseconds.
    pub(crate) fn micros_each(&self, cost: Duration) -> f64 {
        cost.as_secs_f64() * 1e6 / count(self.succeeded.max(1))
    }

    /// Fails when a request did.
    pub(crate) fn checked(self) -> anyhow::Result<Self> {
        if let Some(failure) = self.failure {
            anyhow::bail!("{} requests failed: {failure}", self.failed);
        }
        Ok(self)
    }

    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.failure.get_or_insert(why);
    }

    fn add(&mut self, other: Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.failure = self.failure.take().or(other.failure);
        self.latencies.extend(other.latencies);
    }
}

/// Returns a count as a number to calculate with; exact below 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

/// Sends what `request` returns for 0, 1, 2, ... to `addr`.
pub(crate) async fn run(
    addr: SocketAddr,
    load: Load,
    request: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> anyhow::Result<Outcome> {
    let mut connections = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        let opened = Connection::open(addr).await;
        connections.push(opened.context("cannot connect for the load")?);
    }
    let request = Arc::new(request);
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for connection in connections {
        let (request, next) = (Arc::clone(&request), Arc::clone(&next));
        workers.spawn(async move { work(connection, load, started, &next, &*request).await });
    }
    let mut outcome = Outcome::default();
    while let Some(done) = workers.join_next().await {
        outcome.add(done?);
    }
    outcome.took = started.elapsed();
    Ok(outcome)
}

async fn work(
    mut connection: Connection,
    load: Load,
    started: Instant,
    next: &AtomicU64,
    request: &(impl Fn(u64) -> Vec<u8> + Send + Sync),
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut ticks = (!load.pause.is_zero()).then(|| interval(load.pause));
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.most || started.elapsed() >= load.lasting {
            return outcome;
        }
        let bytes = request(number);
        let sent = Instant::now();
        match connection.send(&bytes).await {
            Ok(answer) if answer.is_success() => outcome.succeeded += 1,
            Ok(refused) => {
                let body = String::from_utf8_lossy(refused.body);
                outcome.fail(format!("request {number} got {}: {body}", refused.status));
            }
            Err(broken) => {
                outcome.fail(format!("request {number}: {broken}"));
                return outcome;
            }
        }
        outcome.latencies.push(sent.elapsed());
    }
}

/// Sends `request` so many times per second over `connections`, for `lasting`. A request that has
/// to wait for a connection counts from when it was due.
pub(crate) async fn at_rate(
    addr: SocketAddr,
    request: &[u8],
    connections: u32,
    per_second: u32,
    lasting: Duration,
) -> anyhow::Result<Outcome> {
    let distance = Duration::from_secs(1) / per_second;
    let request: Arc<[u8]> = request.into();
    let mut opened = Vec::new();
    for _ in 0..connections {
        let connection = Connection::open(addr).await;
        opened.push(connection.context("cannot connect for the load")?);
    }
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for (mut connection, turn) in opened.into_iter().zip(0..connections) {
        let request = Arc::clone(&request);
        workers.spawn(async move {
            let mut outcome = Outcome::default();
            let mut after = distance * turn;
            while after < lasting {
                let due = started + after;
                let late = due < Instant::now();
                sleep_until(due).await;
                // The timer itself is up to a millisecond late, which is not the server's fault.
                let counted_from = if late { due } else { Instant::now() };
                match connection.send(&request).await {
                    Ok(answer) if answer.is_success() => outcome.succeeded += 1,
                    Ok(refused) => outcome.fail(format!("a request got {}", refused.status)),
                    Err(broken) => outcome.fail(broken.to_string()),
                }
                outcome.latencies.push(counted_from.elapsed());
                if started.elapsed() > lasting {
                    break;
                }
                after += distance * connections;
            }
            outcome
        });
    }
    let mut outcome = Outcome::default();
    while let Some(done) = workers.join_next().await {
        outcome.add(done?);
    }
    outcome.took = started.elapsed();
    Ok(outcome)
}
