//! One attempt: send the request to one agent and wait for the head of its answer.

use std::time::Duration;

use axum::http::{Request, header};
use http_body_util::Full;
use hyper_util::client::legacy::Error;

use super::headers::strip_hop_by_hop;
use super::target::Target;
use super::upstream::{FIRST_BYTE_TIMEOUT, UpstreamClient, UpstreamResponse};
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

/// Sends the request over `link`.
pub async fn attempt(
    upstream: &UpstreamClient,
    link: Link,
    target: &Target,
) -> Result<UpstreamResponse, ForwardError> {
    let mut request = Request::new(Full::new(target.body.clone()));
    request.method_mut().clone_from(&target.head.method);
    request.uri_mut().clone_from(&target.head.uri);
    request.headers_mut().clone_from(&target.head.headers);
    strip_hop_by_hop(request.headers_mut());
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONTENT_LENGTH);
    request.headers_mut().remove(header::EXPECT);
    match tokio::time::timeout(FIRST_BYTE_TIMEOUT, upstream.send(link, request)).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) if error.is_connect() => Err(ForwardError::NotConnected(error)),
        Ok(Err(error)) => Err(ForwardError::Broken(error)),
        Err(_elapsed) => Err(ForwardError::Silent(FIRST_BYTE_TIMEOUT)),
    }
}
