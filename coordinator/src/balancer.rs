//! Chooses an agent for a request and counts the request for as long as it lives.
//!
//! `policy` is pure; [`Permit`] is owned by the response body.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use ollama_coordinator_common::id::AgentId;

use crate::registry::Registry;
use crate::registry::agent::Candidate;

pub mod choice;
pub mod permit;
pub mod policy;

use permit::Permit;

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
pub struct Waiter(());

impl Waiter {
    /// Returns how many requests are served before this one, and this one: 1 is next.
    pub fn position(&self) -> usize {
        1
    }
}

impl Future for Waiter {
    type Output = Result<Permit, AcquireError>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(AcquireError::Exhausted))
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

/// Picks agents from the registry's routable ones.
#[derive(Clone)]
pub struct Balancer {
    registry: Registry,
    turn: Arc<AtomicUsize>,
}

impl Balancer {
    /// Makes a balancer over `registry`.
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            turn: Arc::default(),
        }
    }

    /// Picks an agent and counts one request on it, or takes a place in the queue.
    pub fn acquire(&self, wanted: Wanted<'_>) -> Result<Acquired, AcquireError> {
        let candidates = self.registry.candidates();
        let fit = |candidate: &&Candidate| {
            (candidate.speaks_ollama || !wanted.ollama_only)
                && !wanted.tried.contains(&candidate.id)
                && (wanted.only.is_empty() || wanted.only.contains(&candidate.id))
        };
        let with_model = candidates.with_model(wanted.model);
        let fitting: Vec<&Candidate> = with_model.iter().filter(fit).collect();
        match policy::round_robin(&fitting, &self.turn) {
            Some(candidate) => Ok(Acquired::Ready(Permit::claim(candidate.clone()))),
            None if !wanted.tried.is_empty() => Err(AcquireError::Exhausted),
            None if !wanted.only.is_empty() => Err(AcquireError::NotThere),
            None if !with_model.is_empty() => Err(AcquireError::OtherApi),
            None if candidates.knows(wanted.model) => Err(AcquireError::NotRoutable),
            None if self.registry.counts().presumed > 0 => Err(AcquireError::Recovering),
            None => Err(AcquireError::NoSuchModel),
        }
    }
}
