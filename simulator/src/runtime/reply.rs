//! What a route answers, before it is known how the script will break it.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _, unfold};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::engine::QueueFull;
use super::generation::{Generation, Step};
use super::record::Exchange;
use super::wire::AnswerBody;
use super::words::Sequence;

const JSON: &str = "application/json; charset=utf-8";
/// One JSON value a line.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// A status, a header that says what follows, and a body.
pub(super) struct Reply {
    status: StatusCode,
    header: Option<(HeaderName, HeaderValue)>,
    body: ReplyBody,
}

enum ReplyBody {
    Whole(Bytes),
    Streamed(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl Reply {
    pub(super) fn json(value: &Value) -> Self {
        Self::json_with_status(StatusCode::OK, value)
    }

    pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            header: Some(content_type("text/plain; charset=utf-8")),
            body: ReplyBody::Whole(text.into()),
        }
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            header: None,
            body: ReplyBody::Whole(Bytes::new()),
        }
    }

    /// Sends the client elsewhere.
    pub(super) fn moved(status: StatusCode, location: &str) -> Self {
        let location = HeaderValue::from_str(location).ok();
        Self {
            header: location.map(|location| (LOCATION, location)),
            ..Self::empty(status)
        }
    }

    pub(super) fn streamed(
        kind: &'static str,
        stream: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Self {
        Self {
            status: StatusCode::OK,
            header: Some(content_type(kind)),
            body: ReplyBody::Streamed(Box::pin(stream)),
        }
    }

    /// Streams a generation, beginning when its first token is there; `format` turns each step into
    /// bytes, or ends the stream without any.
    pub(super) async fn stream(
        kind: &'static str,
        mut generation: Generation,
        format: impl FnMut(Step) -> Option<Bytes> + Send + 'static,
    ) -> Result<Self, ApiError> {
        let first = generation.next_step().await;
        if matches!(first, Step::Broken) {
            return Err(ApiError::simulated());
        }
        let state = Some((Some(first), generation, format));
        let stream = unfold(state, async |state| {
            let (first, mut generation, mut format) = state?;
            let step = match first {
                Some(first) => first,
                None => generation.next_step().await,
            };
            let goes_on = match step {
                Step::Thought(_) | Step::Token(_) | Step::Call(_) => true,
                Step::Done(_) | Step::Broken => false,
            };
            let bytes = format(step)?;
            Some((bytes, goes_on.then_some((None, generation, format))))
        });
        Ok(Self::streamed(kind, stream))
    }

    /// Ends `exchange` with the answer: at once, or with the last byte of a stream.
    pub(super) fn into_response(self, mut exchange: Exchange) -> Response<AnswerBody> {
        let body = match self.body {
            ReplyBody::Whole(bytes) => {
                exchange.answered();
                Full::new(bytes).boxed_unsync()
            }
            ReplyBody::Streamed(stream) => {
                let guarded = unfold((stream, exchange), async |(mut stream, mut exchange)| {
                    let Some(bytes) = stream.next().await else {
                        exchange.answered();
                        return None;
                    };
                    Some((Ok(Frame::data(bytes)), (stream, exchange)))
                });
                StreamBody::new(guarded).boxed_unsync()
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().extend(self.header);
        response
    }

    pub(super) fn json_with_status(status: StatusCode, value: &Value) -> Self {
        Self {
            status,
            header: Some(content_type(JSON)),
            body: ReplyBody::Whole(value.to_string().into()),
        }
    }
}

fn content_type(kind: &'static str) -> (HeaderName, HeaderValue) {
    (CONTENT_TYPE, HeaderValue::from_static(kind))
}

/// An error before the first byte of an answer.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn unknown_model(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("model '{name}' not found"))
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The error that the script asks for where an answer in one piece cannot break off.
    pub(super) fn simulated() -> Self {
        Self::failed(SIMULATED_ERROR)
    }

    pub(super) fn into_reply(self, dialect: Dialect) -> Reply {
        let body = match dialect {
            Dialect::Native => json!({ "error": self.message }),
            Dialect::OpenAi => {
                let kind = match self.status {
                    StatusCode::BAD_REQUEST => "invalid_request_error",
                    StatusCode::NOT_FOUND => "not_found_error",
                    _ => "api_error",
                };
                json!({ "error": {
                    "message": self.message, "type": kind, "param": null, "code": null,
                } })
            }
            Dialect::Anthropic => anthropic_error(self.status, &self.message),
        };
        Reply::json_with_status(self.status, &body)
    }
}

impl From<QueueFull> for ApiError {
    fn from(full: QueueFull) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, full.to_string())
    }
}

/// The text of errors that only the script asked for.
pub(super) const SIMULATED_ERROR: &str = "simulated failure";

/// Returns an error as the Anthropic protocol has it.
fn anthropic_error(status: StatusCode, message: &str) -> Value {
    let kind = match status.as_u16() {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    };
    let request_id = Sequence::new(0, "request", message).next_number();
    json!({
        "type": "error",
        "error": { "type": kind, "message": message },
        "request_id": format!("req_{request_id:016x}"),
    })
}

/// Whose error shape a route uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Native,
    OpenAi,
    Anthropic,
}

impl Dialect {
    pub(super) fn of(path: &str) -> Self {
        if path == "/v1/messages" || path.starts_with("/v1/messages/") {
            Self::Anthropic
        } else if path.starts_with("/v1/") {
            Self::OpenAi
        } else {
            Self::Native
        }
    }
}

/// Returns bytes that frame a value as one line of NDJSON.
pub(super) fn json_line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

/// Returns one server-sent event that is named as its value's `type` says.
pub(super) fn named_event(value: &Value) -> String {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n")
}

/// Returns one server-sent event without a name.
pub(super) fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}
