//! Chooses an agent for a request and counts the request for as long as it lives.
//!
//! [`state::State`] decides, under one lock that is held for about a microsecond; here are the
//! lock, the clock and the wakers. [`Permit`] is owned by the response body.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ollama_coordinator_common::id::AgentId;
#[cfg(not(test))]
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;

pub mod choice;
mod doubt;
pub mod ejection;
pub mod facts;
mod fleet;
#[cfg(test)]
mod interleaved;
pub mod permit;
pub mod policy;
pub mod queue;
pub mod speed;
pub mod state;

use facts::AgentFacts;
#[cfg(test)]
use interleaved::Mutex;
use permit::{Outcome, Pace, Permit};
use policy::Policy;
use queue::TicketId;
use state::{Acquisition, Claim, News, Settings, State};

/// What a request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The model.
    pub model: &'a str,
    /// Whether only an agent that speaks Ollama's own API will do.
    pub ollama_only: bool,
    /// The agents the caller named; empty: any.
    pub only: &'a [AgentId],
    /// Agents that were tried before and are not to be tried again.
    pub tried: &'a [AgentId],
    /// Who asks, for fairness between clients: a hash of the API key, else of the address.
    pub client: u64,
    /// A hash of the beginning of the conversation, so that it can go where it was before.
    pub prefix: Option<u64>,
}

/// What became of asking for an agent.
#[derive(Debug)]
pub enum Acquired {
    /// An agent can take the request now.
    Ready(Permit),
    /// All that could are busy: the request waits for its turn.
    Queued(Waiter),
}

/// A place in the queue, given up when dropped.
#[derive(Debug)]
pub struct Waiter {
    balancer: Balancer,
    ticket: TicketId,
}

impl Waiter {
    /// Returns how many requests are served before this one, and this one: 1 is next.
    pub fn position(&self) -> usize {
        let core = self.balancer.0.core.lock();
        core.state.position(self.ticket).unwrap_or(1)
    }
}

impl Future for Waiter {
    type Output = Result<Permit, AcquireError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker().clone();
        // An old waker is dropped after the lock: with it a task may go, and its waiter.
        let (settled, _old) = {
            let mut core = self.balancer.0.core.lock();
            match core.state.collect(self.ticket) {
                Some(settled) => (Some(settled), None),
                None => (None, core.wakers.insert(self.ticket, waker)),
            }
        };
        settled.map_or(Poll::Pending, |settled| {
            Poll::Ready(settled.map(|grant| Permit::new(self.balancer.clone(), grant)))
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let _waker = self.balancer.with(|core, now| {
            core.state.cancel(self.ticket, now);
            core.wakers.remove(&self.ticket)
        });
    }
}

/// Why no agent can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcquireError {
    /// No known agent has the model.
    #[error("no agent has the model")]
    NoSuchModel,
    /// Agents that have it get requests, but none of them speaks Ollama's own API.
    #[error("no agent that has the model speaks Ollama's API")]
    OtherApi,
    /// Agents that have it are known, but none may get requests now.
    #[error("every agent that has the model is offline or gets no requests")]
    NotRoutable,
    /// As before, and one of them is paused.
    #[error("every agent that has the model is paused or offline")]
    Paused,
    /// As [`Self::NotRoutable`], but one of them may be back at once.
    #[error("every agent that has the model is offline or comes back just now")]
    Reconnecting,
    /// No known agent has the model, but some have not been heard of since the start.
    #[error("not every agent has been heard of since the coordinator started")]
    Recovering,
    /// None of the agents that the caller named can take it.
    #[error("none of the agents that were named can take the request")]
    NotThere,
    /// Every agent that could be tried was.
    #[error("every agent that has the model was tried")]
    Exhausted,
    /// As many requests wait as may.
    #[error("the queue of the model is full")]
    QueueFull,
    /// It waited for as long as it may.
    #[error("no agent became free in time")]
    QueueTimeout,
}

/// How much is being done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests being served.
    pub in_flight: usize,
    /// Requests that wait.
    pub queued: usize,
    /// Requests that wait for each model that is waited for.
    pub queues: Vec<(String, usize)>,
    /// How often each agent was ejected that ever was.
    pub ejections: Vec<(AgentId, u64)>,
}

/// A handle to the one balancer of this process.
#[derive(Clone)]
pub struct Balancer(Arc<Shared>);

struct Shared {
    registry: Registry,
    policy: Policy,
    core: Mutex<Core>,
    wanted: Notify,
}

struct Core {
    state: State,
    /// Of those who wait.
    wakers: HashMap<TicketId, Waker>,
    /// When the task looks next.
    looks_at: Option<Instant>,
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer").finish_non_exhaustive()
    }
}

impl Balancer {
    /// Makes the balancer over `registry`.
    pub fn new(registry: Registry, settings: Settings) -> Self {
        let core = Core {
            state: State::new(settings, rand::random()),
            wakers: HashMap::new(),
            looks_at: None,
        };
        Self(Arc::new(Shared {
            registry,
            policy: settings.policy,
            core: Mutex::new(core),
            wanted: Notify::new(),
        }))
    }

    /// Returns how it chooses.
    pub fn policy(&self) -> Policy {
        self.0.policy
    }

    /// Picks an agent and counts one request on it, or takes a place in the queue.
    pub fn acquire(&self, wanted: Wanted<'_>) -> Result<Acquired, AcquireError> {
        match self.with(|core, now| core.state.acquire(&wanted, now)) {
            Ok(Acquisition::Ready(grant)) => Ok(Acquired::Ready(Permit::new(self.clone(), grant))),
            Ok(Acquisition::Queued(ticket)) => Ok(Acquired::Queued(Waiter {
                balancer: self.clone(),
                ticket,
            })),
            Err(error) => Err(self.in_full(error, wanted.model)),
        }
    }

    /// Returns why nobody can take a request, with what only the registry knows of it.
    pub fn in_full(&self, error: AcquireError, model: &str) -> AcquireError {
        let registry = &self.0.registry;
        if error == AcquireError::NoSuchModel && registry.counts().presumed > 0 {
            AcquireError::Recovering
        } else if error == AcquireError::NotRoutable && registry.awaits(model) {
            AcquireError::Reconnecting
        } else if error == AcquireError::NotRoutable && registry.is_paused(model) {
            AcquireError::Paused
        } else {
            error
        }
    }

    /// Returns how much is being done.
    pub fn totals(&self) -> Totals {
        let core = self.0.core.lock();
        Totals {
            in_flight: core.state.in_flight(),
            queued: core.state.queued(),
            queues: core.state.queues(),
            ejections: core.state.ejections(),
        }
    }

    /// Returns whether any known agent has a model, routable or not.
    pub fn knows(&self, model: &str) -> bool {
        self.0.core.lock().state.knows(model)
    }

    pub(super) fn answered(&self, claim: &mut Claim) {
        if claim.is_awaited() {
            let now = Instant::now();
            self.0.core.lock().state.answered(claim, now);
        }
    }

    pub(super) fn settle(&self, claim: Claim, outcome: Outcome, pace: Option<Pace>) {
        self.with(|core, now| core.state.settle(claim, outcome, pace, now));
    }

    /// Does something under the lock, with what the registry knows, then wakes whom it concerns.
    fn with<T>(&self, act: impl FnOnce(&mut Core, Instant) -> T) -> T {
        let mut core = self.0.core.lock();
        let now = Instant::now();
        for (id, facts) in self.0.registry.take_routing_changes() {
            match facts {
                Some(facts) => core.state.upsert(&AgentFacts::of(&facts), now),
                None => core.state.forget(id, now),
            }
        }
        let result = act(&mut core, now);
        let woken = core.state.take_woken();
        let wakers: Vec<Waker> = woken
            .into_iter()
            .filter_map(|ticket| core.wakers.remove(&ticket))
            .collect();
        let is_sooner = match (core.state.next_deadline(), core.looks_at) {
            (Some(due), Some(looks_at)) => due < looks_at,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let wants_task = is_sooner || core.state.has_news();
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
        if wants_task {
            self.0.wanted.notify_one();
        }
        result
    }

    /// Does what is due and returns what the registry should know and when to look again.
    fn look(&self) -> (Vec<News>, Option<Instant>) {
        self.with(|core, now| {
            core.state.advance(now);
            core.looks_at = core.state.next_deadline();
            (core.state.take_news(), core.looks_at)
        })
    }
}

/// Follows the registry and the time until the token is cancelled: serves those who wait when an
/// agent joins or a hold-down ends, and tells the registry who is ejected. Nothing is polled.
pub async fn run(balancer: Balancer, token: CancellationToken) -> Result<(), Infallible> {
    let registry = &balancer.0.registry;
    loop {
        let (news, look_again) = balancer.look();
        for news in news {
            match news {
                News::Ejected(id) => registry.set_ejected(id, true),
                News::Returned(id) => registry.set_ejected(id, false),
            }
        }
        let due = async {
            match look_again {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = due => {}
            () = balancer.0.wanted.notified() => {}
            () = registry.routing_changed() => {}
        }
    }
}
