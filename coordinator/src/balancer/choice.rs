//! Why an agent was picked, kept small: it is made for every request.

use std::time::Duration;

/// Among whom an agent was picked, and how.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// How long the request waited in the queue.
    pub queued: Duration,
}
