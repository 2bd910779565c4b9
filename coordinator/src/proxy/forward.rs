//! One attempt: send the request to one agent and wait for the first bytes of its answer.

use std::time::Duration;

use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use super::headers::strip_request;
use super::hops;
use super::upstream::{SendError, Sending, UpstreamBody, UpstreamClient};
use crate::balancer::permit::Failure;
use crate::registry::agent::Link;

/// Answers of a known length up to this one are sent on whole.
const SHORT: u64 = 1024 * 1024;

/// An answer of which the first bytes are there.
pub struct Answer {
    /// Its head.
    pub head: Parts,
    /// Its first bytes, all of them if it is short; `None`: it has no body.
    pub first: Option<Frame<Bytes>>,
    /// What follows.
    pub rest: UpstreamBody,
    /// When the request was sent.
    pub sent: Instant,
    /// When the first bytes arrived.
    pub began: Instant,
}

/// Why an attempt led to no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection: the agent has seen nothing of the request.
    #[error(transparent)]
    NotConnected(SendError),
    /// The connection broke after the request was sent.
    #[error("the agent broke off before it answered")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer began in time.
    #[error("the agent did not begin to answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
}

impl ForwardError {
    /// Returns what this says of the agent.
    pub fn failure(&self) -> Failure {
        match self {
            Self::NotConnected(_) => Failure::NotConnected,
            Self::Broken(_) => Failure::Broken,
            Self::Silent(_) => Failure::Silent,
        }
    }
}

/// Returns the headers that go to agents: what belongs to the client's connection is left out.
pub fn headers_for_agents(mut headers: HeaderMap, hop: &HeaderValue) -> HeaderMap {
    let passed = hops::passed(&headers);
    strip_request(&mut headers);
    hops::add(&mut headers, passed, hop);
    headers
}

/// Sends the request over `link` and waits for the first bytes of the answer's body.
///
/// Until then nothing has been sent on to the client, and another agent may be tried.
pub async fn attempt(
    upstream: &UpstreamClient,
    link: Link,
    sending: Sending<'_>,
    patience: Duration,
) -> Result<Answer, ForwardError> {
    let sent = Instant::now();
    let answered = async {
        let answer = upstream.send(link, sending).await?;
        let (head, mut rest) = answer.into_parts();
        let first = begin(&mut rest).await;
        let first = first.map_err(|error| SendError::Broken(error.into()))?;
        Ok((head, first, rest))
    };
    match timeout_at(sent + patience, answered).await {
        Ok(Ok((head, first, rest))) => Ok(Answer {
            head,
            first,
            rest,
            sent,
            began: Instant::now(),
        }),
        Ok(Err(error @ SendError::NotConnected(..))) => Err(ForwardError::NotConnected(error)),
        Ok(Err(SendError::Broken(error))) => Err(ForwardError::Broken(error)),
        Err(_elapsed) => Err(ForwardError::Silent(patience)),
    }
}

/// Reads the first bytes of a body. One that is short and has a known length is read to its end:
/// a client has no use for a part of it, and what breaks can then be had from another agent.
async fn begin(body: &mut UpstreamBody) -> Result<Option<Frame<Bytes>>, hyper::Error> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let length = body.size_hint().exact().unwrap_or(u64::MAX);
    let first = body.frame().await.transpose()?;
    if length > SHORT || body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::new();
    let mut next = first;
    while let Some(frame) = next {
        whole.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        next = body.frame().await.transpose()?;
    }
    Ok(Some(Frame::data(whole.freeze())))
}

/// Returns what an answer says of its agent, if it is one that another agent may do better.
pub fn failure_in(answer: &Answer) -> Option<Failure> {
    match answer.head.status {
        StatusCode::NOT_FOUND if speaks_of_a_model(answer) => Some(Failure::NoModel),
        StatusCode::NOT_FOUND => Some(Failure::NoRoute),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(Failure::Busy),
        status if status.is_server_error() => Some(Failure::Status(status.as_u16())),
        _ => None,
    }
}

/// Returns whether what was not found is the model, rather than the route: runtimes of other makes
/// and ages lack some.
fn speaks_of_a_model(answer: &Answer) -> bool {
    let text = answer.first.as_ref().and_then(Frame::data_ref);
    text.is_some_and(|text| memchr::memmem::find(text, b"model").is_some())
}
