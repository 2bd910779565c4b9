//! The right to send one request to one agent, counted for as long as it is held.

use std::sync::Arc;
use std::time::Duration;

use super::Balancer;
use super::choice::Choice;
use super::state::{Claim, Grant};
use crate::registry::agent::Candidate;

/// What became of one attempt at an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It answered to the end.
    Success,
    /// It did not.
    Failure(Failure),
    /// The client left, which says nothing of the agent.
    Cancelled,
}

/// How an agent failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    NotConnected,
    /// The connection broke before the answer was whole.
    Broken,
    /// It did not begin to answer in time.
    Silent,
    /// Its answer paused for too long.
    Stalled,
    /// It answered with a status that says that the server is at fault.
    Status(u16),
    /// It said that it has too much to do already.
    Busy,
    /// It says that it does not have the model.
    NoModel,
    /// It does not have the route, which says nothing of its other routes.
    NoRoute,
}

/// How fast an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// From sending the request to the first byte of the answer's body.
    pub first_byte: Duration,
    /// Chunks after the first one.
    pub chunks: u64,
    /// From the first chunk to the last.
    pub streaming: Duration,
}

/// Counts one in-flight request on an agent until it is dropped.
#[must_use = "a dropped permit counts nothing"]
#[derive(Debug)]
pub struct Permit {
    agent: Arc<Candidate>,
    choice: Choice,
    /// `None`: settled.
    claim: Option<(Balancer, Claim)>,
}

impl Permit {
    pub(super) fn new(balancer: Balancer, grant: Grant) -> Self {
        Self {
            agent: grant.agent,
            choice: grant.choice,
            claim: Some((balancer, grant.claim)),
        }
    }

    /// Makes a permit that counts nowhere.
    #[cfg(test)]
    pub(crate) fn claim(candidate: Candidate) -> Self {
        Self {
            agent: Arc::new(candidate),
            choice: Choice::default(),
            claim: None,
        }
    }

    /// Returns the agent that was picked.
    pub fn candidate(&self) -> &Candidate {
        &self.agent
    }

    /// Takes out among whom and why it was picked: one is told of it.
    pub fn take_choice(&mut self) -> Choice {
        std::mem::take(&mut self.choice)
    }

    /// Notes that the agent has begun to answer.
    pub fn answered(&mut self) {
        if let Some((balancer, claim)) = &mut self.claim {
            balancer.answered(claim);
        }
    }

    /// Gives the slot back and says what became of the attempt; a permit that is dropped without
    /// counts as cancelled.
    pub fn settle(mut self, outcome: Outcome, pace: Option<Pace>) {
        self.give_back(outcome, pace);
    }

    fn give_back(&mut self, outcome: Outcome, pace: Option<Pace>) {
        if let Some((balancer, claim)) = self.claim.take() {
            balancer.settle(claim, outcome, pace);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(Outcome::Cancelled, None);
    }
}
