//! What happens to one request, told step by step: for the request log, the metrics and traces.
//!
//! Metadata only: never a prompt, an answer or a secret.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};

use super::error::Dialect;
use crate::balancer::permit::{Outcome, Permit};

/// Begins the stories of requests and remembers the latest.
#[derive(Debug, Clone, Default)]
pub struct Storybook(Arc<()>);

impl Storybook {
    /// Begins the story of one request.
    pub fn begin(&self, method: &str, path: &str, headers: &HeaderMap, client: IpAddr) -> Story {
        let _unused = (method, path, headers, client);
        Story(())
    }
}

/// The story of one request. Dropped without an end, the client has left.
#[derive(Debug)]
pub struct Story(());

impl Story {
    /// Names the request for the client: its own `x-request-id` if it is usable, else a new one.
    pub fn id(&self) -> &str {
        ""
    }

    /// The request asks for a model.
    pub fn asks_for(&mut self, dialect: Dialect, model: &str, is_streamed: bool) {
        let _unused = (dialect, model, is_streamed);
    }

    /// It waits for its turn.
    pub fn queued(&mut self, position: usize) {
        let _unused = position;
    }

    /// An agent was picked, and the request is sent to it.
    pub fn attempt(&mut self, permit: &Permit) {
        let _unused = permit;
    }

    /// The attempt came to nothing, another one may follow.
    pub fn attempt_failed(&mut self, outcome: Outcome) {
        let _unused = outcome;
    }

    /// The first bytes of the body are there and go to the client with this status.
    pub fn answered(&mut self, status: StatusCode) {
        let _unused = status;
    }

    /// Tells the client in headers what its request is called, how many agents were asked and how
    /// long each step took.
    pub fn describe(&self, headers: &mut HeaderMap) {
        let _unused = headers;
    }

    /// Adds to the headers of the upstream request those that join traces.
    pub fn mark(&self, headers: &mut HeaderMap) {
        let _unused = headers;
    }

    /// The answer has ended. `tail` holds the ends of its last two chunks, in which runtimes say
    /// how many tokens there were.
    pub fn ended(self, outcome: Outcome, bytes: u64, chunks: u64, tail: [&[u8]; 2]) {
        let _unused = (outcome, bytes, chunks, tail);
    }

    /// No agent answered; the client gets this status and message from the coordinator itself.
    pub fn refused(self, status: StatusCode, message: &str) {
        let _unused = (status, message);
    }
}
