//! The right to send one request to one agent, counted for as long as it is held.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::registry::agent::Candidate;

/// Counts one in-flight request on an agent until it is dropped.
#[must_use = "a dropped permit counts nothing"]
#[derive(Debug)]
pub struct Permit {
    candidate: Candidate,
    in_flight: Arc<AtomicU32>,
}

impl Permit {
    /// Counts one more request on `candidate`.
    pub(crate) fn claim(candidate: Candidate) -> Self {
        let in_flight = Arc::clone(&candidate.in_flight);
        in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            candidate,
            in_flight,
        }
    }

    /// Returns the agent that was picked.
    pub fn candidate(&self) -> &Candidate {
        &self.candidate
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
