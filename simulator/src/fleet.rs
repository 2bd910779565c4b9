//! Thousands of cheap agents that speak the real protocol to a coordinator over real sockets.
//!
//! One dispatcher owns every agent's schedule; a fixed crew of keep-alive connections does what is
//! due. An agent costs some hundred bytes and no task. Only loopback coordinators are dialled.

pub mod stats;
pub mod storm;

mod agent;
mod crew;
mod roster;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::agent::Cast;
use self::crew::{JobQueue, Settled};
use self::roster::Roster;
use self::stats::{FleetSummary, Stats};

const COMMANDS: usize = 16;
const SETTLED_AT_ONCE: usize = 256;
const GOODBYE_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Who makes up a fleet and where it registers.
#[derive(Debug, Clone)]
pub struct FleetOptions {
    /// The coordinator; must be a loopback address.
    pub coordinator: SocketAddr,
    /// How many agents.
    pub agents: usize,
    /// How many connections they share.
    pub connections: NonZeroUsize,
    /// The runtime that every agent claims to front; must be a loopback address.
    pub runtime: SocketAddr,
    /// Over how long a time the first registrations are spread.
    pub start_spread: Duration,
    /// Makes ids and secrets: the same seed is the same agents again, with new sessions.
    pub seed: u64,
}

impl FleetOptions {
    /// Makes the options of `agents` agents over 64 connections that all start at once.
    pub fn new(coordinator: SocketAddr, runtime: SocketAddr, agents: usize) -> Self {
        Self {
            coordinator,
            agents,
            connections: NonZeroUsize::MIN.saturating_add(63),
            runtime,
            start_spread: Duration::ZERO,
            seed: 0,
        }
    }

    fn check(&self) -> Result<(), FleetError> {
        for addr in [self.coordinator, self.runtime] {
            if !addr.ip().is_loopback() {
                return Err(FleetError::NotLoopback(addr));
            }
        }
        Ok(())
    }
}

/// Why a fleet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// Simulated agents stay on this machine.
    #[error("{0} is not a loopback address, and a simulated fleet talks to nothing else")]
    NotLoopback(SocketAddr),
}

/// A running fleet. Dropped, all of its agents are silent at once, as if killed.
#[derive(Debug)]
pub struct Fleet {
    cast: Arc<Cast>,
    stats: Arc<Stats>,
    commands: mpsc::Sender<Command>,
    tasks: Tasks,
    _stop: DropGuard,
}

#[derive(Debug)]
enum Command {
    Pause(usize, oneshot::Sender<()>),
    Resume(oneshot::Sender<()>),
    Leave(oneshot::Sender<()>),
}

impl Fleet {
    /// Starts the agents; they register by themselves and never give up.
    ///
    /// # Errors
    /// An address is not a loopback address.
    pub async fn start(options: FleetOptions) -> Result<Self, FleetError> {
        options.check()?;
        let cast = Arc::new(Cast::new(&options));
        let stats = Arc::new(Stats::new(options.agents));
        let queue = Arc::new(JobQueue::default());
        let (commands, orders) = mpsc::channel(COMMANDS);
        let (report, settled) = mpsc::channel(SETTLED_AT_ONCE);
        let tasks = Tasks::default();
        for _ in 0..options.connections.get().min(options.agents.max(1)) {
            let worker = crew::Worker::new(&cast, &stats, &queue, report.clone());
            let stopped = tasks.token().clone();
            tasks.spawn("fleet connection", OnExit::Log, async move {
                stopped.run_until_cancelled(worker.work()).await;
                Ok::<_, FleetError>(())
            });
        }
        let rng = SmallRng::seed_from_u64(options.seed);
        let dispatcher = Dispatcher {
            roster: Roster::new(options.agents, options.start_spread, rng, Instant::now()),
            stats: Arc::clone(&stats),
            queue,
            orders,
            settled,
            waiting: Vec::new(),
        };
        let stopped = tasks.token().clone();
        tasks.spawn("fleet dispatcher", OnExit::Stop, async move {
            dispatcher.run(stopped).await;
            Ok::<_, FleetError>(())
        });
        Ok(Self {
            cast,
            stats,
            commands,
            _stop: tasks.token().clone().drop_guard(),
            tasks,
        })
    }

    /// Returns the id of the `index`-th agent.
    pub fn agent_id(&self, index: usize) -> AgentId {
        self.cast.id(index)
    }

    /// Returns every agent whose registration was answered, with the epoch it was granted last.
    pub fn acknowledged(&self) -> Vec<(AgentId, u64)> {
        let epochs = self.stats.epochs().enumerate();
        epochs
            .filter(|(_, epoch)| *epoch > 0)
            .map(|(index, epoch)| (self.cast.id(index), epoch))
            .collect()
    }

    /// Returns all counters as they are now.
    pub fn summary(&self) -> FleetSummary {
        self.stats.summary()
    }

    /// Silences the first `count` agents without a goodbye. Returns when their last request is over.
    pub async fn pause_agents(&self, count: usize) {
        self.order(|done| Command::Pause(count, done)).await;
    }

    /// Lets every silenced agent send heartbeats again, at once.
    pub async fn resume(&self) {
        self.order(Command::Resume).await;
    }

    /// Says goodbye for every agent that is not silenced, and ends.
    pub async fn stop(self) -> FleetSummary {
        let goodbyes = self.order(Command::Leave);
        if timeout(GOODBYE_WITHIN, goodbyes).await.is_err() {
            tracing::warn!("Not every simulated agent could say goodbye");
        }
        self.kill().await
    }

    /// Ends without a goodbye.
    pub async fn kill(self) -> FleetSummary {
        if let Err(error) = self.tasks.stop(STOP_WITHIN).await {
            tracing::error!(%error, "Fleet did not stop");
        }
        self.stats.summary()
    }

    async fn order(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, is_done) = oneshot::channel();
        let sent = self.commands.send(command(done)).await;
        if sent.is_err() || is_done.await.is_err() {
            tracing::error!("Fleet has ended");
        }
    }
}

/// Owns the schedule; never waits for a connection.
struct Dispatcher {
    roster: Roster,
    stats: Arc<Stats>,
    queue: Arc<JobQueue>,
    orders: mpsc::Receiver<Command>,
    settled: mpsc::Receiver<Settled>,
    /// Whoever waits for the outstanding requests of silenced or leaving agents.
    waiting: Vec<oneshot::Sender<()>>,
}

impl Dispatcher {
    async fn run(mut self, stopped: CancellationToken) {
        let mut settled = Vec::with_capacity(SETTLED_AT_ONCE);
        loop {
            let now = Instant::now();
            while let Some(job) = self.roster.take_due(now) {
                self.queue.push(job);
            }
            self.stats.set_registered(self.roster.registered());
            if self.roster.is_settled() {
                self.waiting.drain(..).for_each(tell);
            }
            let next_due = self.roster.next_due();
            tokio::select! {
                () = stopped.cancelled() => return,
                Some(order) = self.orders.recv() => self.obey(order),
                received = self.settled.recv_many(&mut settled, SETTLED_AT_ONCE) => {
                    if received == 0 {
                        return;
                    }
                    for Settled { job, outcome } in settled.drain(..) {
                        self.roster.settle(&job, outcome, Instant::now());
                    }
                }
                () = sleep_until(next_due.unwrap_or(now)), if next_due.is_some() => {}
            }
        }
    }

    fn obey(&mut self, order: Command) {
        match order {
            Command::Pause(count, done) => {
                self.roster.pause(count);
                self.waiting.push(done);
            }
            Command::Resume(done) => {
                self.roster.resume(Instant::now());
                tell(done);
            }
            Command::Leave(done) => {
                self.roster.leave(Instant::now());
                self.waiting.push(done);
            }
        }
    }
}

fn tell(waiting: oneshot::Sender<()>) {
    if waiting.send(()).is_err() {
        tracing::debug!("Nobody waits for the fleet any more");
    }
}
