//! The tunnel: one connection, dialled by the agent, over which the coordinator sends requests.
//!
//! The agent asks `GET /api/agents/{id}/tunnel?session={session}` for an upgrade to [`PROTOCOL`],
//! with its secret as the bearer token. After the 101 the roles flip: HTTP/2 with prior knowledge,
//! the coordinator as its client, the agent as its server. The agent passes each request on to its
//! runtime. A request whose stream the agent refuses (`REFUSED_STREAM`) has not reached the runtime;
//! one whose stream it resets otherwise may have.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What stands in the `Upgrade` header of both sides.
pub const PROTOCOL: &str = "ollama-coordinator-tunnel";

/// How many requests are under way in one tunnel at most; further ones wait.
pub const MAX_STREAMS: u32 = 1024;
/// How much of one answer may be under way until its reader has taken it: tokens need little.
pub const ANSWER_WINDOW: u32 = 256 * 1024;
/// How much of one request may be: it bounds how fast a file is uploaded over a long way.
pub const REQUEST_WINDOW: u32 = 4 * 1024 * 1024;
/// How much of all messages of one direction: enough for all answers, so that readers who take
/// nothing never hold up the others.
pub const CONNECTION_WINDOW: u32 = MAX_STREAMS * ANSWER_WINDOW;
/// How much of one message a sender keeps that the network has not taken.
pub const SEND_BUFFER: usize = 64 * 1024;
/// How much of all messages the system keeps that the network has not taken, where it can be told:
/// what is urgent waits behind that.
pub const NOT_SENT: u32 = 128 * 1024;
/// The most bytes of headers of one message: more than an HTTP/1.1 server takes.
pub const MAX_HEADERS: u32 = 512 * 1024;
/// How often each side asks whether the other is there.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// How long it waits for the answer.
pub const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How the coordinator reaches an agent's runtime.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Over a connection that the agent has dialled.
    Tunnel,
    /// The coordinator dials the address and port.
    #[default]
    Direct,
}

impl fmt::Display for LinkKind {
    /// Writes the code, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
