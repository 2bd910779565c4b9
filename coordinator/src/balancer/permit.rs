//! The right to send one request to one agent, counted for as long as it is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::choice::Choice;
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
    candidate: Candidate,
    in_flight: Arc<AtomicU32>,
    choice: Choice,
}

impl Permit {
    /// Counts one more request on `candidate`.
    pub(crate) fn claim(candidate: Candidate) -> Self {
        let in_flight = Arc::clone(&candidate.in_flight);
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            candidate,
            in_flight,
            choice: Choice::default(),
        }
    }

    /// Returns the agent that was picked.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }

    /// Returns among whom and why it was picked.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Gives the slot back and says what became of the attempt; a permit that is dropped without
    /// counts as cancelled.
    pub fn settle(self, outcome: Outcome, pace: Option<Pace>) {
        let (_outcome, _pace) = (outcome, pace);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
