//! What a client is told whose request an operator has cancelled.

use std::pin::Pin;

use axum::http::{HeaderValue, Response, StatusCode};

use super::body::ProxyBody;
use super::error::{self, Dialect};
use super::story::Cancelled;
use super::{REQUEST_HEADER, story};

/// Why its answer ends.
pub const MESSAGE: &str = "the request was cancelled by an operator";

/// Answers, or says that an operator has cancelled the request; whoever called then drops `answering`,
/// which ends the work. It is borrowed because it is large, and a copy would be moved with each request.
pub async fn or_answer(
    cancelled: Cancelled,
    dialect: Dialect,
    answering: Pin<&mut impl Future<Output = Response<ProxyBody>>>,
) -> Response<ProxyBody> {
    tokio::select! {
        biased;
        answer = answering => answer,
        () = cancelled.heard() => refusal(dialect, &cancelled),
    }
}

fn refusal(dialect: Dialect, cancelled: &Cancelled) -> Response<ProxyBody> {
    let status = StatusCode::from_u16(story::CANCELLED_STATUS).expect("it is a status");
    let mut answer = error::answer(dialect, status, MESSAGE);
    let id = HeaderValue::from_str(cancelled.id()).expect("an id is a header value");
    answer.headers_mut().insert(REQUEST_HEADER, id);
    answer
}
