//! Keeps a tunnel to the coordinator while the session is registered, and carries requests in it.
//!
//! A tunnel that is replaced takes no further requests, but those that run in it go on.

mod attempt;
mod carry;
mod forward;
mod headers;
mod narrator;
mod patience;

use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::secret::AgentSecret;
use ollama_coordinator_common::shutdown::Shutdown;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::attempt::Target;
use self::forward::Forward;
use self::narrator::Narrator;
use self::patience::{Patience, Pause, Renewal};
use crate::config::Config;
use crate::coordinator::CoordinatorError;
use crate::status::writer::StatusWriter;

/// What the session has come to, as far as a tunnel needs it.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Who is registered.
    pub(crate) agent_id: AgentId,
    /// What proves it.
    pub(crate) secret: AgentSecret,
    /// The session that is registered.
    pub(crate) session: SessionId,
    /// Grows when a tunnel of before may lead nowhere: with a registration, with a wake-up.
    pub(crate) generation: u64,
    /// When the coordinator last renewed the lease.
    pub(crate) renewed_at: Instant,
    /// When the lease runs out.
    pub(crate) lease_ends: Instant,
}

impl Standing {
    fn is_of_the_same_session(&self, other: &Self) -> bool {
        (self.agent_id, self.session) == (other.agent_id, other.session)
    }

    fn has_moved_on(&self, from: &Self) -> bool {
        !self.is_of_the_same_session(from) || self.generation != from.generation
    }
}

/// What ties the tunnel to the rest of the agent.
#[derive(Debug)]
pub(crate) struct Ties {
    /// How the session stands; `None` while it is not registered.
    pub(crate) standing: watch::Receiver<Option<Standing>>,
    /// Where the session hears that it should renew at once.
    pub(crate) renewal: Arc<Notify>,
    /// Where the tunnel says how it is.
    pub(crate) status: StatusWriter,
    /// When the process ends, and running requests are waited for no longer than it takes a drain.
    pub(crate) shutdown: Shutdown,
}

/// Opens tunnels, one after the other.
#[derive(Debug)]
pub(crate) struct Keeper {
    target: Target,
    forward: Forward,
    patience: Patience,
    drain: Duration,
    ties: Ties,
    narrator: Narrator,
    connections: JoinSet<Result<(), hyper::Error>>,
    in_use: Option<CancellationToken>,
}

/// Why a tunnel is not the one to use any more.
enum Ended {
    /// Another one should take its place.
    Outdated,
    /// The connection ended.
    Lost(Option<hyper::Error>),
}

impl Keeper {
    pub(crate) fn new(config: &Config, coordinator: &BaseUrl, ties: Ties) -> Self {
        Self {
            target: Target {
                coordinator: coordinator.clone(),
                dial: config.dial.clone(),
                connect: config.timing.connect,
                answer: config.timing.tunnel_answer,
            },
            forward: Forward::new(&config.runtime, ties.status.clone()),
            patience: Patience::new(&config.timing, SmallRng::from_os_rng()),
            drain: config.timing.drain,
            narrator: Narrator::new(ties.status.clone()),
            ties,
            connections: JoinSet::new(),
            in_use: None,
        }
    }

    /// Keeps a tunnel until it is to `retire`; then lets the running requests end, however long they
    /// take while the process goes on.
    pub(crate) async fn run(mut self, retire: CancellationToken) {
        retire.run_until_cancelled(self.keep()).await;
        self.retire();
        self.narrator.retired(self.forward.running());
        let shutdown = self.ties.shutdown.clone();
        let connections = &mut self.connections;
        let drained = async {
            shutdown.stopping().await;
            tokio::time::sleep(self.drain).await;
        };
        tokio::select! {
            biased;
            () = shutdown.forced() => {}
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = drained => {
                let running = self.forward.running();
                tracing::warn!(running, "Requests took too long to end and were cut");
            }
        }
        self.connections.shutdown().await;
    }

    async fn keep(&mut self) {
        while let Some(standing) = self.registered().await {
            match self.open(&standing).await {
                Some(Ok(tunnel)) => self.carry(tunnel, &standing).await,
                Some(Err(error)) => {
                    self.narrator.failed(&error);
                    let pause = self.patience.after_failure(&error);
                    if pause == Pause::FIRST_REFUSAL {
                        self.ties.renewal.notify_one();
                    }
                    self.pause(pause, &standing).await;
                }
                None => self.patience.reset(),
            }
        }
    }

    /// Waits until a session is registered whose lease runs; `None` when there will be none.
    async fn registered(&mut self) -> Option<Standing> {
        if self.ties.standing.borrow().is_none() {
            self.retire();
        }
        let runs = |standing: &Option<Standing>| {
            let standing = standing.as_ref();
            standing.is_some_and(|standing| standing.lease_ends > Instant::now())
        };
        let standing = self.ties.standing.wait_for(runs).await;
        standing.ok()?.clone()
    }

    /// Tries to open a tunnel; `None` when the session moved on meanwhile.
    async fn open(
        &mut self,
        standing: &Standing,
    ) -> Option<Result<hyper::upgrade::Upgraded, CoordinatorError>> {
        let moved_on = moved_on(standing);
        tokio::select! {
            biased;
            _ = self.ties.standing.wait_for(moved_on) => None,
            opened = attempt::open(&self.target, standing) => Some(opened),
        }
    }

    /// Carries requests in a tunnel until it ends or another one should take its place.
    async fn carry(&mut self, tunnel: hyper::upgrade::Upgraded, standing: &Standing) {
        let since = Instant::now();
        let retire = CancellationToken::new();
        let carrying = carry::carry(tunnel, self.forward.clone(), retire.clone());
        let carrying = self.connections.spawn(carrying);
        if let Some(replaced) = self.in_use.replace(retire) {
            replaced.cancel();
        }
        if self.narrator.up() {
            // The loss has shortened the lease that the coordinator holds.
            self.ties.renewal.notify_one();
        }
        let ended = tokio::select! {
            biased;
            error = ended(&mut self.connections, carrying.id()) => Ended::Lost(error),
            _ = self.ties.standing.wait_for(moved_on(standing)) => Ended::Outdated,
        };
        match ended {
            Ended::Outdated => {
                self.patience.reset();
                let now = self.ties.standing.borrow().clone();
                if !now.is_some_and(|now| now.is_of_the_same_session(standing)) {
                    self.retire();
                }
            }
            Ended::Lost(error) => {
                self.in_use = None;
                self.narrator.lost(error.as_ref());
                let pause = self.patience.after_loss(since.elapsed());
                self.pause(pause, standing).await;
            }
        }
    }

    /// Waits before the next attempt; a session that moved on ends the wait.
    async fn pause(&mut self, pause: Pause, standing: &Standing) {
        let renewed_at = |standing: &Option<Standing>| standing.as_ref().map(|s| s.renewed_at);
        let before = renewed_at(&self.ties.standing.borrow());
        let moved_on = moved_on(standing);
        let renewed = |now: &Option<Standing>| moved_on(now) || renewed_at(now) != before;
        let ends_early = |now: &Option<Standing>| match pause.renewal {
            Renewal::Suffices => renewed(now),
            Renewal::Ignored | Renewal::Needed => moved_on(now),
        };
        let standings = &mut self.ties.standing;
        let delayed = tokio::time::timeout(pause.delay, standings.wait_for(ends_early));
        let has_ended_early = delayed.await.is_ok();
        if !has_ended_early && pause.renewal == Renewal::Needed {
            // Without the session there is no renewal and nothing to wait for.
            drop(standings.wait_for(renewed).await);
        }
    }

    /// Takes no further requests in the tunnel that is in use.
    fn retire(&mut self) {
        if let Some(in_use) = self.in_use.take() {
            in_use.cancel();
        }
    }
}

fn moved_on(from: &Standing) -> impl Fn(&Option<Standing>) -> bool {
    move |now| now.as_ref().is_none_or(|now| now.has_moved_on(from))
}

/// Waits for the end of one connection among several, and returns what broke it.
async fn ended(
    connections: &mut JoinSet<Result<(), hyper::Error>>,
    id: tokio::task::Id,
) -> Option<hyper::Error> {
    while let Some(ended) = connections.join_next_with_id().await {
        match ended {
            Ok((which, result)) if which == id => return result.err(),
            Err(panicked) if panicked.id() == id => return None,
            Ok(_) | Err(_) => {}
        }
    }
    None
}
