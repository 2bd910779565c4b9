//! Why an agent was picked, kept small: it is made for every request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::policy::Policy;
use crate::registry::agent::Candidate;

/// At most so many of the agents that were considered are remembered.
pub const MAX_CONSIDERED: usize = 8;

/// Among whom an agent was picked, and how.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The policy that picked.
    pub policy: Policy,
    /// What decided.
    pub reason: Reason,
    /// How long the request waited in the queue.
    pub queued: Duration,
    /// How many agents have the model, whether they could take the request or not.
    pub candidates: usize,
    /// The agent that was picked, then the best of the others that were looked at.
    pub considered: Vec<Considered>,
}

/// One agent as it was when another or it itself was picked.
#[derive(Debug, Clone)]
pub struct Considered {
    /// Who it is.
    pub agent: Arc<Candidate>,
    /// The requests it was serving.
    pub in_flight: u32,
    /// How many it serves at once.
    pub capacity: u32,
    /// Whether it had the model in memory.
    pub warm: bool,
    /// Whether the model fits its free GPU memory.
    pub fits: Fits,
    /// How long it takes for this model, as a multiple of what all its agents take on average.
    pub slowness: f32,
    /// Expected work before an answer: the lower the better.
    pub score: f32,
    /// Why it could not take the request.
    pub why_not: Option<WhyNot>,
}

/// Whether a model fits into the free memory of a machine's GPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fits {
    /// It is larger.
    No,
    /// The machine or the model does not tell.
    #[default]
    Unknown,
    /// It is smaller, or there already.
    Yes,
}

/// What decided for an agent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No other could take the request.
    #[default]
    Only,
    /// It had the model in memory, others that could have taken the request did not.
    Warm,
    /// The model fits its free memory, and not that of the others.
    Fits,
    /// It had the least to do for its capacity and speed.
    LeastLoaded,
    /// Chance, among equals.
    Random,
    /// It was its turn.
    Turn,
    /// Chance, in proportion to capacity.
    Weight,
    /// The conversation belongs there.
    Affinity,
    /// It shows whether it works again.
    Probation,
    /// It is ejected, but so is at least half of the fleet.
    Panic,
    /// It was the first to become free while the request waited.
    Freed,
}

/// Why an agent could not take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyNot {
    /// It gets no requests at all.
    NotRoutable,
    /// It does not speak Ollama's own API.
    OtherApi,
    /// The caller named others.
    NotNamed,
    /// It was tried before.
    Tried,
    /// It said a moment ago that it does not have the model.
    NoModel,
    /// It is ejected.
    Ejected,
    /// It said a moment ago that it has too much to do.
    Busy,
    /// It serves as many requests as it can.
    Full,
    /// Its heartbeats are missing, or it is silent: others are asked first.
    Doubtful,
}

impl WhyNot {
    /// Returns whether waiting may help.
    pub fn passes(self) -> bool {
        match self {
            Self::Ejected | Self::Busy | Self::Full | Self::Doubtful => true,
            Self::NotRoutable | Self::OtherApi | Self::NotNamed | Self::Tried | Self::NoModel => {
                false
            }
        }
    }
}

impl fmt::Display for Reason {
    /// Writes the code, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for WhyNot {
    /// Writes the code, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
