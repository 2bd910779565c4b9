//! Errors towards clients, each in the shape of the protocol that the client speaks.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::json;

use super::body::ProxyBody;
use super::forward::ForwardError;
use super::machines::aim::AimError;
use super::selector::SelectorError;
use super::target::MAX_BODY_BYTES;
use super::upstream::SendError;
use crate::balancer::AcquireError;

const RETRY_AFTER_SECONDS: &str = "2";
/// What a client is told whose agent broke off.
pub const BROKEN_OFF: &str = "the agent that was answering broke off";
/// What a browser shows at a path that is not there.
const LOST: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Not found</title>\
    <h1>There is nothing at this path</h1><p>The dashboard of Ollama Coordinator is at \
    <code>/</code>. A reverse proxy that serves it below a prefix must take the prefix off: \
    for nginx, <code>proxy_pass</code> ends with a slash; for Caddy, <code>handle_path</code>.";
/// The type of error bodies, as the runtimes write it.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Ollama's own.
    Ollama,
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

/// How a stream tells its client that it broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastWord {
    /// A line of JSON, as Ollama does.
    Line,
    /// A server-sent event without a name, as OpenAI does.
    OpenAiEvent,
    /// A server-sent event that is named `error`, as Anthropic does.
    AnthropicEvent,
}

impl Dialect {
    /// Returns the protocol of a path.
    pub fn of(path: &str) -> Self {
        if path.starts_with("/v1/messages") {
            Self::Anthropic
        } else if path.starts_with("/v1/") {
            Self::OpenAi
        } else {
            Self::Ollama
        }
    }

    /// Returns the body of an error.
    pub fn error(self, status: StatusCode, message: &str) -> serde_json::Value {
        match self {
            Self::Ollama => json!({ "error": message }),
            Self::OpenAi => json!({ "error": {
                "message": message, "type": openai_type(status), "param": null, "code": null,
            }}),
            Self::Anthropic => json!({
                "type": "error",
                "error": { "type": anthropic_type(status), "message": message },
                "request_id": format!("req_{:032x}", rand::random::<u128>()),
            }),
        }
    }

    /// Returns the error in `body`, which came with `status`, in this protocol's shape.
    pub fn retold(self, status: StatusCode, body: &[u8]) -> serde_json::Value {
        let told: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &told["error"];
        let is_own = match self {
            Self::Ollama => error.is_string(),
            Self::OpenAi => error["message"].is_string(),
            Self::Anthropic => told["type"] == "error" && error["message"].is_string(),
        };
        if is_own {
            return told;
        }
        let message = error.as_str().or_else(|| error["message"].as_str());
        let standard = status.canonical_reason().unwrap_or("the machine failed");
        self.error(status, message.unwrap_or(standard))
    }
}

impl LastWord {
    /// Returns how a stream with these headers can tell its client that it broke, in this protocol.
    pub fn of_stream(headers: &HeaderMap, dialect: Dialect) -> Option<Self> {
        if headers.contains_key(header::CONTENT_LENGTH) {
            return None;
        }
        let content_type = headers.get(header::CONTENT_TYPE)?.as_bytes();
        if content_type.starts_with(b"text/event-stream") {
            Some(match dialect {
                Dialect::Anthropic => Self::AnthropicEvent,
                Dialect::OpenAi | Dialect::Ollama => Self::OpenAiEvent,
            })
        } else if content_type.starts_with(b"application/x-ndjson") {
            Some(Self::Line)
        } else {
            None
        }
    }

    /// Returns what ends each message of such a stream.
    pub fn separator(self) -> &'static [u8] {
        match self {
            Self::Line => b"\n",
            Self::OpenAiEvent | Self::AnthropicEvent => b"\n\n",
        }
    }

    /// Returns how a message with this body is sent.
    pub fn framed(self, body: &str) -> String {
        match self {
            Self::Line => format!("{body}\n"),
            Self::OpenAiEvent => format!("data: {body}\n\n"),
            Self::AnthropicEvent => format!("event: error\ndata: {body}\n\n"),
        }
    }

    /// Returns the bytes that tell why nothing more comes; a message that the stream broke in the
    /// middle of is ended first.
    pub fn bytes(self, is_between_messages: bool, why: &str) -> Bytes {
        let dialect = match self {
            Self::Line => Dialect::Ollama,
            Self::OpenAiEvent => Dialect::OpenAi,
            Self::AnthropicEvent => Dialect::Anthropic,
        };
        let body = dialect.error(StatusCode::BAD_GATEWAY, why);
        let message = self.framed(&body.to_string());
        let before: &[u8] = if is_between_messages {
            b""
        } else {
            self.separator()
        };
        Bytes::from([before, message.as_bytes()].concat())
    }
}

fn openai_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 408 | 413 => "invalid_request_error",
        404 => "not_found_error",
        _ => "api_error",
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 408 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
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
    /// All bodies together take as much memory as they may.
    #[error("too many large requests are being served, please try again")]
    NoMemory,
    /// The bodies of one client take as much memory as they may.
    #[error("too many large requests of this client are being served, please try again")]
    ShareUsed,
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
    /// The agents that it names are not there.
    #[error(transparent)]
    Selector(SelectorError),
    /// It is not clear which machine is to do it, or none can.
    #[error(transparent)]
    Aim(AimError),
    /// None of the machines that were asked could be reached.
    #[error("the machine could not be reached")]
    NotReached(#[source] SendError),
    /// No agent that was tried could be reached.
    #[error("no agent that has the model could be reached")]
    Unreachable,
    /// The agent broke off or was silent, and no other one was or could be tried.
    #[error("{0}")]
    Failed(#[source] ForwardError),
}

impl ProxyError {
    /// Returns the status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadBody(_) | Self::NotJson(_) => StatusCode::BAD_REQUEST,
            Self::BodyPaused(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NoMemory => StatusCode::SERVICE_UNAVAILABLE,
            Self::ShareUsed => StatusCode::TOO_MANY_REQUESTS,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Selector(error) => error.status(),
            Self::Aim(error) => error.status(),
            Self::NoAgent { error, .. } => match error {
                AcquireError::NoSuchModel | AcquireError::OtherApi => StatusCode::NOT_FOUND,
                AcquireError::NotRoutable
                | AcquireError::Paused
                | AcquireError::Reconnecting
                | AcquireError::Recovering
                | AcquireError::NotThere
                | AcquireError::QueueFull
                | AcquireError::QueueTimeout
                | AcquireError::Exhausted => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Unreachable
            | Self::NotReached(_)
            | Self::Failed(ForwardError::NotConnected(_) | ForwardError::Broken(_)) => {
                StatusCode::BAD_GATEWAY
            }
            Self::Failed(ForwardError::Silent(_)) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Returns the word for it in metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadBody(_) | Self::NotJson(_) => "bad_request",
            Self::BodyPaused(_) => "body_paused",
            Self::TooLarge => "too_large",
            Self::NoMemory | Self::ShareUsed => "no_memory",
            Self::Loop => "loop",
            Self::Selector(_) => "no_such_agent",
            Self::Aim(_) => "no_machine",
            Self::NotReached(_) => "unreachable",
            Self::NoAgent { error, .. } => match error {
                AcquireError::NoSuchModel => "no_such_model",
                AcquireError::OtherApi => "other_api",
                AcquireError::NotRoutable => "not_routable",
                AcquireError::Paused => "paused",
                AcquireError::Reconnecting => "reconnecting",
                AcquireError::Recovering => "recovering",
                AcquireError::NotThere => "not_there",
                AcquireError::QueueFull => "queue_full",
                AcquireError::QueueTimeout => "queue_timeout",
                AcquireError::Exhausted => "unreachable",
            },
            Self::Unreachable | Self::Failed(ForwardError::NotConnected(_)) => "unreachable",
            Self::Failed(ForwardError::Broken(_)) => "broken",
            Self::Failed(ForwardError::Silent(_)) => "silent",
        }
    }

    /// Returns what the client is told.
    pub fn message(&self) -> String {
        match self {
            Self::NotJson(error) => format!("invalid request body: {error}"),
            Self::NoAgent { model, error } => no_agent(model, *error),
            Self::BadBody(_)
            | Self::BodyPaused(_)
            | Self::Loop
            | Self::TooLarge
            | Self::Selector(_)
            | Self::Aim(_)
            | Self::NotReached(_)
            | Self::NoMemory
            | Self::ShareUsed
            | Self::Unreachable
            | Self::Failed(_) => self.to_string(),
        }
    }

    /// Logs what is our fault or an agent's, once.
    pub fn log(&self) {
        let status = self.status();
        if status.is_server_error() {
            let error = self as &dyn std::error::Error;
            tracing::warn!(status = status.as_u16(), error, "Request was not answered");
        }
    }
}

fn no_agent(model: &str, error: AcquireError) -> String {
    match error {
        AcquireError::NoSuchModel => format!("model '{model}' not found"),
        AcquireError::OtherApi => format!(
            "the machines that have model '{model}' do not speak Ollama's API, use \
             /v1/chat/completions"
        ),
        AcquireError::Recovering => format!(
            "no machine is known to have model '{model}', but the coordinator has just started \
             and has not heard of all of them"
        ),
        AcquireError::NotThere => {
            format!("none of the machines that were named can answer for model '{model}' now")
        }
        AcquireError::QueueFull => {
            format!("too many requests wait for model '{model}' already, please try again")
        }
        AcquireError::QueueTimeout => {
            format!("no machine that has model '{model}' became free in time, please try again")
        }
        AcquireError::Paused => {
            format!("every machine that has model '{model}' is paused by its owner, or offline")
        }
        AcquireError::NotRoutable | AcquireError::Reconnecting | AcquireError::Exhausted => {
            format!("every machine that has model '{model}' is offline or gets no requests")
        }
    }
}

/// Makes the answer of an error that the coordinator itself tells.
pub fn answer(dialect: Dialect, status: StatusCode, message: &str) -> Response<ProxyBody> {
    let body = dialect.error(status, message).to_string();
    let mut response = Response::new(ProxyBody::whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, JSON);
    if matches!(
        status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    ) {
        let retry_after = HeaderValue::from_static(RETRY_AFTER_SECONDS);
        headers.insert(header::RETRY_AFTER, retry_after);
    }
    response
}

/// Answers a path that is not there as Ollama does; a person who looks at it is told more.
pub fn page_not_found(asked: &HeaderMap) -> Response<ProxyBody> {
    let accepted = asked.get(header::ACCEPT).map(HeaderValue::as_bytes);
    let is_person = accepted.is_some_and(|it| memchr::memmem::find(it, b"text/html").is_some());
    if !is_person {
        return plain(StatusCode::NOT_FOUND, "404 page not found");
    }
    let mut response = plain(StatusCode::NOT_FOUND, LOST);
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// Answers a method that the path does not take as Ollama does.
pub fn method_not_allowed(allow: &'static str) -> Response<ProxyBody> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed");
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

/// Sends a client that has put a slash at the end of a path to the one without, as Ollama does.
pub fn moved(head: &Parts) -> Response<ProxyBody> {
    let path = head.uri.path().trim_end_matches('/');
    let query = head.uri.query().map(|query| format!("?{query}"));
    let location = format!("{path}{}", query.unwrap_or_default());
    let mut response = Response::new(ProxyBody::Whole(None));
    *response.status_mut() = if head.method == Method::GET {
        StatusCode::MOVED_PERMANENTLY
    } else {
        StatusCode::TEMPORARY_REDIRECT
    };
    let location = HeaderValue::try_from(location).expect("a part of a URI is a header value");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Makes an answer of plain text.
pub fn plain(status: StatusCode, text: &'static str) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::whole(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}
