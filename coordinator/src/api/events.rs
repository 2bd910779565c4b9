//! Server-sent events: everything once, then each change, and a tick so that silence means trouble.

use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::event::{Event, Happening};
use serde::Deserialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use utoipa::IntoParams;

use super::error::ApiError;
use crate::feed::{Feed, RESYNC, View};
use crate::state::Process;

/// How a browser says what it has seen when it connects again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// How much of each agent is wanted.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// True: of an agent's models only names and sizes.
    #[serde(default)]
    brief: bool,
}

fn view(is_brief: bool) -> View {
    if is_brief { View::Brief } else { View::Full }
}

/// How much of each agent is wanted, and from where on.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StreamQuery {
    /// True: of an agent's models only names and sizes.
    #[serde(default)]
    brief: bool,
    /// The id of the last event that was seen, as in the header `Last-Event-ID`: the stream goes on
    /// from there if the coordinator still has what came after it, else it begins with a snapshot.
    since: Option<String>,
}

/// Streams a snapshot, then changes and ticks, until the reader leaves or falls behind.
#[utoipa::path(
    get, path = "/api/events", tag = "events", params(StreamQuery),
    responses(
        (status = 200, description = "Server-sent events, each an `Event`",
         body = Event, content_type = "text/event-stream"),
        (status = 400, description = "An unusable query", body = Problem),
    )
)]
pub async fn stream_events(
    State(feed): State<Feed>,
    State(process): State<Process>,
    query: Result<Query<StreamQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    let last = headers.get(LAST_EVENT_ID);
    let last = last.and_then(|id| id.to_str().ok());
    let seen = last.or(query.since.as_deref());
    // What is no id of ours is one that is not known any more.
    let seen = seen.and_then(|id| id.parse().ok());
    let view = view(query.brief);
    let subscription = feed.subscribe(view, seen);
    let stopping = async move { process.shutdown.stopping().await };
    let frames = stream::iter(subscription.beginning)
        .chain(following(subscription.frames))
        .take_until(Box::pin(stopping));
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    let body = Body::from_stream(frames.map(Ok::<_, Infallible>));
    Ok((headers, body).into_response())
}

/// A reader that is too slow is sent away: what it missed is in the snapshot it gets next.
fn following(frames: Receiver<Bytes>) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(Some(frames), |frames| async {
        let mut frames = frames?;
        match frames.recv().await {
            Ok(frame) if frame == RESYNC => Some((RESYNC, None)),
            Ok(frame) => Some((frame, Some(frames))),
            Err(RecvError::Lagged(_)) => Some((RESYNC, None)),
            Err(RecvError::Closed) => None,
        }
    })
}

/// Shows everything as it is: the event with which a stream begins, for those who cannot stream. Who
/// says with `If-None-Match` which one it has is told when that one still holds.
#[utoipa::path(
    get, path = "/api/events/snapshot", tag = "events",
    params(
        EventsQuery,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier answer"),
    ),
    responses(
        (status = 200, description = "An event of type `snapshot`", body = Event,
         headers(("ETag" = String, description = "A name for what is shown; none while it changes"))),
        (status = 304, description = "Nothing but the time and the times last seen has changed"),
        (status = 400, description = "An unusable query", body = Problem),
    )
)]
pub async fn get_snapshot(
    State(feed): State<Feed>,
    query: Result<Query<EventsQuery>, QueryRejection>,
    asked: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    let view = view(query.brief);
    // The name comes first: what is read after it is not older than it says.
    let tag = feed.snapshot_tag(view);
    let tag = tag.and_then(|tag| HeaderValue::try_from(tag).ok());
    let mut response = match &tag {
        Some(tag) if is_known(&asked, tag) => StatusCode::NOT_MODIFIED.into_response(),
        Some(_) | None => {
            let parts = feed.snapshot(view).map(Ok::<_, Infallible>);
            let json = HeaderValue::from_static("application/json");
            let body = Body::from_stream(stream::iter(parts));
            ([(header::CONTENT_TYPE, json)], body).into_response()
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.extend(tag.map(|tag| (header::ETAG, tag)));
    Ok(response)
}

/// Returns whether somebody has what `tag` names.
fn is_known(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let known = asked.get_all(header::IF_NONE_MATCH).iter();
    let mut known = known.flat_map(|tags| tags.as_bytes().split(|byte| *byte == b','));
    known.any(|known| known.trim_ascii() == tag.as_bytes())
}

/// How many to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HappeningsQuery {
    /// At most so many, 1 to 1000; 100 when nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// Lists what happened last, newest first.
#[utoipa::path(
    get, path = "/api/events/log", tag = "events", params(HappeningsQuery),
    responses(
        (status = 200, description = "What happened", body = [Happening]),
        (status = 400, description = "An unusable limit", body = Problem),
    )
)]
pub async fn list_happenings(
    State(feed): State<Feed>,
    query: Result<Query<HappeningsQuery>, QueryRejection>,
) -> Result<Json<Vec<Happening>>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", "must be 1 to 1000"));
    }
    Ok(Json(feed.happenings(limit)))
}
