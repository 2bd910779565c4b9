//! Server-sent events: everything once, then each change, and a tick so that silence means trouble.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::sse::{Event as Frame, Sse};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, Utc};
use futures_core::Stream;
use futures_util::{StreamExt as _, stream};
use ollama_coordinator_common::id::{AgentId, InstanceId};
use ollama_coordinator_common::protocol::event::Event;
use serde::Serialize;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::registry::Registry;
use crate::registry::snapshot::AgentSnapshot;
use crate::registry::transition::Transition;
use crate::state::Process;

const TICK: Duration = Duration::from_secs(5);

/// Streams a snapshot, then changes and ticks, until the reader leaves or falls behind.
#[utoipa::path(
    get, path = "/api/events", tag = "events",
    responses((status = 200, description = "Server-sent events, each an `Event`",
               body = Event, content_type = "text/event-stream"))
)]
pub async fn stream_events(
    State(registry): State<Registry>,
    State(process): State<Process>,
) -> Response {
    let (agents, transitions) = registry.snapshot_and_subscribe();
    let snapshot = Outgoing::Snapshot {
        instance_id: registry.instance_id(),
        agents: &agents,
    };
    let first = stream::iter([frame(&snapshot)]);
    let stopping = async move { process.shutdown.stopping().await };
    let frames = first
        .chain(changes(transitions))
        .take_until(Box::pin(stopping));
    let headers = [
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Sse::new(frames.map(Ok::<_, Infallible>))).into_response()
}

fn changes(transitions: Receiver<Transition>) -> impl Stream<Item = Frame> + Send {
    stream::unfold(Some(transitions), |transitions| async {
        let mut transitions = transitions?;
        loop {
            let next = tokio::time::timeout(TICK, transitions.recv()).await;
            let sent = match &next {
                Err(_elapsed) => frame(&Outgoing::Tick {
                    server_time: Utc::now(),
                }),
                Ok(Ok(transition)) => match outgoing(transition) {
                    Some(event) => frame(&event),
                    None => continue,
                },
                Ok(Err(RecvError::Lagged(_))) => return Some((frame(&Outgoing::Resync), None)),
                Ok(Err(RecvError::Closed)) => return None,
            };
            return Some((sent, Some(transitions)));
        }
    })
}

fn outgoing(transition: &Transition) -> Option<Outgoing<'_>> {
    match transition {
        Transition::Joined(agent)
        | Transition::Returned(agent)
        | Transition::Expired { agent, .. }
        | Transition::HeartbeatsMissing { agent, .. }
        | Transition::Left(agent)
        | Transition::RoutabilityChanged(agent)
        | Transition::Changed(agent) => Some(Outgoing::AgentChanged { agent }),
        Transition::Removed(id) => Some(Outgoing::AgentRemoved { id: *id }),
        Transition::EndpointShared { .. } | Transition::IsolationSuspected { .. } => None,
    }
}

fn frame(event: &Outgoing<'_>) -> Frame {
    Frame::default().data(serde_json::to_string(event).expect("an event serialises"))
}

/// [`Event`], borrowed.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Outgoing<'a> {
    Snapshot {
        instance_id: InstanceId,
        agents: &'a [AgentSnapshot],
    },
    AgentChanged {
        agent: &'a AgentSnapshot,
    },
    AgentRemoved {
        id: AgentId,
    },
    Tick {
        server_time: DateTime<Utc>,
    },
    Resync,
}
