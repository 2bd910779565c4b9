//! One attempt: send the request to one agent and wait for the head of its answer.

use std::time::Duration;

use axum::http::{Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Error;
use ollama_coordinator_common::id::InstanceId;

use super::headers::strip_request;
use super::hops;
use super::story::Story;
use super::target::Target;
use super::upstream::{FIRST_BYTE_TIMEOUT, UpstreamClient, UpstreamResponse};
use crate::balancer::permit::Failure;
use crate::registry::agent::Link;

/// Why an attempt led to no answer.
#[derive(Debug)]
pub enum ForwardError {
    /// No connection: the agent has seen nothing of the request, another may try it.
    NotConnected(Error),
    /// The connection broke after the request was sent.
    Broken(Error),
    /// No answer began in time.
    Silent(Duration),
}

impl ForwardError {
    /// Returns how the agent failed.
    pub fn failure(&self) -> Failure {
        match self {
            Self::NotConnected(_) => Failure::NotConnected,
            Self::Broken(_) => Failure::Broken,
            Self::Silent(_) => Failure::Silent,
        }
    }
}

/// Sends the request over `link`, marked as having passed the coordinator `hop`.
pub async fn attempt(
    upstream: &UpstreamClient,
    link: Link,
    target: &Target,
    hop: InstanceId,
    story: Option<&Story>,
) -> Result<UpstreamResponse, ForwardError> {
    let mut request = Request::new(Full::new(target.body.clone()));
    request.method_mut().clone_from(&target.head.method);
    request.uri_mut().clone_from(&target.head.uri);
    request.headers_mut().clone_from(&target.head.headers);
    let headers = request.headers_mut();
    strip_request(headers);
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    hops::add(headers, &target.head.headers, hop);
    if let Some(story) = story {
        story.mark(headers);
    }
    match tokio::time::timeout(FIRST_BYTE_TIMEOUT, upstream.send(link, request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) if error.is_connect() => Err(ForwardError::NotConnected(error)),
        Ok(Err(error)) => Err(ForwardError::Broken(error)),
        Err(_elapsed) => Err(ForwardError::Silent(FIRST_BYTE_TIMEOUT)),
    }
}
