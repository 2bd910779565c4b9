//! Errors towards clients, each in the shape of the protocol that the client speaks.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper_util::client::legacy::Error as UpstreamError;
use serde_json::json;

use super::target::MAX_BODY_BYTES;
use crate::balancer::AcquireError;

const RETRY_AFTER_SECONDS: &str = "2";
const BROKEN_OFF: &str = "the agent that was answering broke off";

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Ollama's own.
    Ollama,
    /// OpenAI's.
    OpenAi,
}

/// How a broken stream tells its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWord {
    /// A line of JSON, as Ollama does.
    Line,
    /// A server-sent event.
    Event,
}

impl Dialect {
    fn body(self, status: StatusCode, message: &str) -> serde_json::Value {
        match self {
            Self::Ollama => json!({ "error": message }),
            Self::OpenAi => json!({ "error": {
                "message": message, "type": openai_type(status), "param": null, "code": null,
            }}),
        }
    }
}

impl LastWord {
    /// Returns how a stream with these headers can tell its client that it broke.
    pub fn of_stream(headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        if content_type.starts_with("text/event-stream") {
            Some(Self::Event)
        } else if content_type.starts_with("application/x-ndjson") {
            Some(Self::Line)
        } else {
            None
        }
    }

    /// Returns what ends each message of such a stream.
    pub fn separator(self) -> &'static [u8] {
        match self {
            Self::Line => b"\n",
            Self::Event => b"\n\n",
        }
    }

    /// Returns the bytes to send; a message that the stream broke in the middle of is ended first.
    pub fn bytes(self, is_between_messages: bool) -> Bytes {
        let message = match self {
            Self::Line => json!({ "error": BROKEN_OFF }).to_string(),
            Self::Event => {
                let body = Dialect::OpenAi.body(StatusCode::BAD_GATEWAY, BROKEN_OFF);
                format!("data: {body}")
            }
        };
        let before: &[u8] = if is_between_messages {
            b""
        } else {
            self.separator()
        };
        Bytes::from([before, message.as_bytes(), self.separator()].concat())
    }
}

fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 408 | 413 => "invalid_request_error",
        404 => "not_found_error",
        _ => "api_error",
    }
}

/// Why a client got no answer from a model.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The body cannot be used.
    #[error("{0}")]
    BadBody(&'static str),
    /// The body is not JSON.
    #[error("the body is not the JSON that was expected")]
    NotJson(#[source] serde_json::Error),
    /// The body paused for too long.
    #[error("nothing of the body arrived for {} s", .0.as_secs())]
    BodyPaused(Duration),
    /// The body is too large.
    #[error("the body is larger than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// An agent has sent a request of this coordinator back to it.
    #[error(
        "the request came back to the coordinator: an agent's runtime address leads to the \
         coordinator itself"
    )]
    Loop,
    /// Nobody can take it.
    #[error("no agent can answer for model {model}")]
    NoAgent {
        /// The model asked for.
        model: String,
        /// Why.
        #[source]
        error: AcquireError,
    },
    /// No agent that was tried could be reached.
    #[error("no agent that has the model could be reached")]
    Unreachable,
    /// The agent's connection broke before an answer began.
    #[error("the agent broke off before it answered")]
    Broken(#[source] UpstreamError),
    /// The agent did not begin an answer in time.
    #[error("the agent did not begin to answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl ProxyError {
    /// Returns the answer for a client of this dialect.
    pub fn in_dialect(self, dialect: Dialect) -> ProxyFailure {
        ProxyFailure {
            error: self,
            dialect,
        }
    }

    /// Returns the word for it in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadBody(_) | Self::NotJson(_) => "bad_request",
            Self::BodyPaused(_) => "body_paused",
            Self::TooLarge => "too_large",
            Self::Loop => "loop",
            Self::NoAgent { error, .. } => match error {
                AcquireError::NoSuchModel => "no_such_model",
                AcquireError::OtherApi => "other_api",
                AcquireError::NotRoutable => "not_routable",
                AcquireError::Recovering => "recovering",
                AcquireError::NotThere => "not_there",
                AcquireError::Exhausted => "unreachable",
                AcquireError::QueueFull => "queue_full",
                AcquireError::QueueTimeout => "queue_timeout",
            },
            Self::Unreachable => "unreachable",
            Self::Broken(_) => "broken",
            Self::Silent(_) => "silent",
        }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadBody(_) | Self::NotJson(_) => StatusCode::BAD_REQUEST,
            Self::BodyPaused(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoAgent { error, .. } => match error {
                AcquireError::NoSuchModel | AcquireError::OtherApi => StatusCode::NOT_FOUND,
                AcquireError::NotRoutable
                | AcquireError::Recovering
                | AcquireError::NotThere
                | AcquireError::QueueFull
                | AcquireError::QueueTimeout
                | AcquireError::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Unreachable | Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Silent(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::NotJson(error) => format!("invalid request body: {error}"),
            Self::NoAgent { model, error } => match error {
                AcquireError::NoSuchModel => format!("model '{model}' not found"),
                AcquireError::OtherApi => format!(
                    "the machines that have model '{model}' do not speak Ollama's API, \
                     use /v1/chat/completions"
                ),
                AcquireError::Recovering => format!(
                    "no machine is known to have model '{model}', but the coordinator has just \
                     started and has not heard of all of them"
                ),
                AcquireError::QueueFull
                | AcquireError::QueueTimeout
                | AcquireError::NotThere
                | AcquireError::NotRoutable
                | AcquireError::Exhausted => {
                    format!("every machine that has model '{model}' is offline or gets no requests")
                }
            },
            Self::BadBody(_)
            | Self::BodyPaused(_)
            | Self::Loop
            | Self::TooLarge
            | Self::Unreachable
            | Self::Broken(_)
            | Self::Silent(_) => self.to_string(),
        }
    }
}

/// A [`ProxyError`] in the words of one protocol.
#[derive(Debug)]
pub struct ProxyFailure {
    error: ProxyError,
    dialect: Dialect,
}

impl IntoResponse for ProxyFailure {
    fn into_response(self) -> Response<Body> {
        let status = self.error.status();
        if status.is_server_error() {
            let error = &self.error as &dyn std::error::Error;
            tracing::warn!(status = status.as_u16(), error, "Request was not answered");
        }
        let body = self.dialect.body(status, &self.error.message()).to_string();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(header::CONTENT_TYPE, json);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from_static(RETRY_AFTER_SECONDS),
            );
        }
        response
    }
}

/// Answers an unknown method as Ollama does.
pub async fn method_not_allowed() -> (StatusCode, &'static str) {
    (StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed")
}
