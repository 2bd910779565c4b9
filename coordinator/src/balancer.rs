//! Chooses an agent for a request and counts the request for as long as it lives.
//!
//! The next step makes this weigh load, memory and warmth; the seams are here: `policy` is pure,
//! [`Permit`] is owned by the response body.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::registry::Registry;
use crate::registry::agent::Candidate;

pub mod permit;
pub mod policy;

use permit::Permit;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The model.
    pub model: &'a str,
    /// Whether only an agent that speaks Ollama's own API will do.
    pub ollama_only: bool,
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
    /// Every agent that could be tried was.
    #[error("every agent that has the model was tried")]
    Exhausted,
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

    /// Picks an agent that was not `tried` before and counts one request on it.
    pub fn acquire(&self, wanted: Wanted<'_>, tried: &[Candidate]) -> Result<Permit, AcquireError> {
        let candidates = self.registry.candidates();
        let fit = |candidate: &&Candidate| {
            (candidate.speaks_ollama || !wanted.ollama_only)
                && tried.iter().all(|other| other.id != candidate.id)
        };
        let with_model = candidates.with_model(wanted.model);
        let fitting: Vec<&Candidate> = with_model.iter().filter(fit).collect();
        match policy::round_robin(&fitting, &self.turn) {
            Some(candidate) => Ok(Permit::claim(candidate.clone())),
            None if !tried.is_empty() => Err(AcquireError::Exhausted),
            None if !with_model.is_empty() => Err(AcquireError::OtherApi),
            None if candidates.knows(wanted.model) => Err(AcquireError::NotRoutable),
            None if self.registry.counts().presumed > 0 => Err(AcquireError::Recovering),
            None => Err(AcquireError::NoSuchModel),
        }
    }
}
