//! The stream of what happens.

use http::{HeaderValue, Method, StatusCode, header};
use ollama_coordinator_common::protocol::event::{Event, HappeningKind};
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::json;

use crate::support::agent::FakeAgent;
use crate::support::api::{Answer, Api, request};
use crate::support::coordinator::TestCoordinator;
use crate::support::events::EventStream;

#[tokio::test]
async fn stream_begins_with_everything_that_is_known() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let granted = agent.register(coordinator.api).await;

    let mut events = EventStream::open(coordinator.api).await;

    let Some(Event::Snapshot {
        instance_id,
        agents,
        ..
    }) = events.next().await
    else {
        panic!("the first event is a snapshot");
    };
    assert_eq!(instance_id, granted.coordinator.instance_id);
    assert_eq!(
        agents.iter().map(|agent| agent.id).collect::<Vec<_>>(),
        [agent.id]
    );
}

#[tokio::test]
async fn each_change_is_told_with_the_whole_agent() {
    let coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    events.next().await;
    let agent = FakeAgent::new("gpu-1");

    agent.register(coordinator.api).await;
    let joined = changed(&mut events, |agent| agent.status == AgentStatus::Online).await;
    coordinator
        .api
        .patch(&agent.path(""), &json!({ "notes": "loud" }))
        .await;
    changed(&mut events, |agent| agent.notes.as_deref() == Some("loud")).await;
    agent.leave(coordinator.api).await;
    changed(&mut events, |agent| agent.status == AgentStatus::Offline).await;
    agent.beat(coordinator.api).await;
    changed(&mut events, |agent| agent.status == AgentStatus::Online).await;
    coordinator.api.delete(&agent.path("")).await;

    assert_eq!(
        (joined.id, joined.machine_name.as_str()),
        (agent.id, "gpu-1")
    );
    let removed = events.until(|event| match event {
        Event::AgentRemoved { id, .. } => Some(id),
        Event::Snapshot { .. }
        | Event::AgentChanged { .. }
        | Event::Happened { .. }
        | Event::Tick { .. }
        | Event::Resync => None,
    });
    assert_eq!(removed.await, agent.id);
}

#[tokio::test]
async fn quiet_stream_ticks() {
    let coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    events.next().await;

    let next = events.next().await;

    assert!(matches!(next, Some(Event::Tick { .. })), "{next:?}");
}

#[tokio::test]
async fn stop_of_the_coordinator_ends_every_stream() {
    let mut coordinator = TestCoordinator::new().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(EventStream::open(coordinator.api).await);
    }

    coordinator.stop().await;

    for mut stream in streams {
        let events = stream.drain().await;
        assert!(matches!(events[0], Event::Snapshot { .. }), "{events:?}");
    }
}

#[tokio::test]
async fn frames_are_numbered_without_a_gap_from_the_snapshot_on() {
    let coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    let Some(Event::Snapshot { seq: mut last, .. }) = events.next().await else {
        panic!("the first event is a snapshot");
    };
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;

    let mut seen = Vec::new();
    while seen.len() < 6 {
        let (seq, kind) = match events.next().await.expect("the stream goes on") {
            Event::AgentChanged { seq, .. } => (seq, "changed"),
            Event::Happened { seq, .. } => (seq, "happened"),
            Event::Tick { seq, .. } => (seq, "tick"),
            other @ (Event::Snapshot { .. } | Event::AgentRemoved { .. } | Event::Resync) => {
                panic!("{other:?}")
            }
        };
        assert_eq!(seq, last + 1, "{seen:?}");
        last = seq;
        seen.push(kind);
    }

    for kind in ["changed", "happened", "tick"] {
        assert!(seen.contains(&kind), "{seen:?}");
    }
}

#[tokio::test]
async fn brief_view_names_models_and_tells_nothing_else_of_them() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let models =
        json!([{ "name": "a:latest", "size": 7, "digest": "d", "capabilities": ["tools"] }]);
    let report =
        json!({ "session": agent.session, "runtime": { "status": "running", "models": models } });
    agent
        .send(coordinator.api, &agent.path("/heartbeat"), &report)
        .await;

    let mut brief = EventStream::open_at(coordinator.api, "/api/events?brief=true").await;
    let mut full = EventStream::open(coordinator.api).await;

    let models = |event: Option<Event>| match event {
        Some(Event::Snapshot { agents, .. }) => agents[0].models.clone(),
        other => panic!("{other:?}"),
    };
    let (brief, full) = (models(brief.next().await), models(full.next().await));
    assert_eq!(
        (full[0].digest.as_deref(), full[0].capabilities.len()),
        (Some("d"), 1)
    );
    assert_eq!(
        (brief[0].name.as_str(), brief[0].size),
        ("a:latest", Some(7))
    );
    assert_eq!((&brief[0].digest, brief[0].capabilities.len()), (&None, 0));
}

#[tokio::test]
async fn refused_registration_is_told_and_remembered() {
    let coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    let metadata = json!({ "machine_name": "gpu-9", "ip_address": "169.254.169.254" });

    coordinator.api.post("/api/agents", &metadata).await;

    let told = events.until(|event| match event {
        Event::Happened { happening, .. } => Some(happening),
        Event::Snapshot { .. }
        | Event::AgentChanged { .. }
        | Event::AgentRemoved { .. }
        | Event::Tick { .. }
        | Event::Resync => None,
    });
    let told = told.await;
    assert_eq!(told.kind, HappeningKind::Refused);
    assert_eq!(told.agent_name.as_deref(), Some("gpu-9"));
    assert_eq!(told.reason.as_deref(), Some("address_not_allowed"));
    let remembered = coordinator.api.get("/api/events/log").await.json().await;
    assert_eq!(remembered, serde_json::to_value([told]).unwrap());
}

#[tokio::test]
async fn load_comes_with_ticks() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let mut events = EventStream::open(coordinator.api).await;
    events
        .until(|event| matches!(event, Event::Tick { .. }).then_some(()))
        .await;
    let load = json!({ "session": agent.session, "metrics": { "gpu_percent": 61.0 } });

    let path = agent.path("/heartbeat");
    agent.send(coordinator.api, &path, &load).await;

    let loads = events.until(|event| match event {
        Event::Tick { loads, .. } => (!loads.is_empty()).then_some(loads),
        Event::Snapshot { .. }
        | Event::AgentChanged { .. }
        | Event::AgentRemoved { .. }
        | Event::Happened { .. }
        | Event::Resync => None,
    });
    let loads = loads.await;
    let percent = loads[0].metrics.as_ref().and_then(|it| it.gpu_percent);
    assert_eq!(
        (loads.len(), loads[0].id, percent),
        (1, agent.id, Some(61.0))
    );
}

#[tokio::test]
async fn snapshot_can_be_fetched_where_streams_are_held_back() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;

    let fetched = coordinator
        .api
        .get("/api/events/snapshot")
        .await
        .json()
        .await;

    assert_eq!(fetched["type"], "snapshot");
    assert_eq!(fetched["agents"][0]["id"], agent.id.to_string());
}

#[tokio::test]
async fn who_has_the_snapshot_already_is_told_so_until_something_changes() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    agent.leave(coordinator.api).await;
    let api = coordinator.api;
    let name = async || ask(api, None).await.headers.get(header::ETAG).cloned();
    // It has one as soon as nothing has happened for a second.
    let tag = wait_for("a name", PATIENCE, name, Option::is_some).await;

    let unchanged = ask(api, tag.as_ref()).await;
    let loud = json!({ "notes": "loud" });
    api.patch(&agent.path(""), &loud).await;
    let status = async || ask(api, tag.as_ref()).await.status;
    wait_for("a change", PATIENCE, status, |status| {
        *status == StatusCode::OK
    })
    .await;
    let changed = ask(api, tag.as_ref()).await.json().await;

    assert_eq!(unchanged.status, StatusCode::NOT_MODIFIED);
    assert_eq!(unchanged.headers.get(header::ETAG), tag.as_ref());
    assert_eq!(changed["agents"][0]["notes"], "loud");
}

/// Asks for a snapshot that is not the one of this name.
async fn ask(api: Api, tag: Option<&HeaderValue>) -> Answer {
    let mut asked = request(Method::GET, "/api/events/snapshot?brief=true", "");
    let other = HeaderValue::from_static("W/\"another\"");
    let headers = asked.headers_mut();
    headers.append(header::IF_NONE_MATCH, other);
    if let Some(tag) = tag {
        headers.append(header::IF_NONE_MATCH, tag.clone());
    }
    api.send(asked).await
}

#[tokio::test]
async fn viewer_that_comes_back_is_told_what_it_missed_and_nothing_twice() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let mut events = EventStream::open(coordinator.api).await;
    let last = events.until(|event| seq_of(&event).filter(|_| is_tick(&event)));
    let last = last.await;
    let id = events.last_id.clone();
    drop(events);

    let loud = json!({ "notes": "loud" });
    coordinator.api.patch(&agent.path(""), &loud).await;
    let mut resumed = EventStream::resume(coordinator.api, &id).await;

    let mut seen = Vec::new();
    while !seen.iter().any(|event| is_change_of(event, &agent)) {
        seen.push(resumed.next().await.expect("the stream goes on"));
    }
    let numbers: Vec<Option<u64>> = seen.iter().map(seq_of).collect();
    let expected = (last + 1..).map(Some).take(seen.len());
    assert_eq!(numbers, expected.collect::<Vec<_>>(), "{seen:?}");
    assert!(!seen.iter().any(is_snapshot), "{seen:?}");
}

#[tokio::test]
async fn browser_says_by_a_header_where_it_was() {
    let coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    events.until(|event| is_tick(&event).then_some(())).await;
    let mut again = request(Method::GET, "/api/events?brief=false", "");
    let id = events.last_id.parse().unwrap();
    again.headers_mut().insert("last-event-id", id);

    let mut answer = coordinator.api.send(again).await;

    let first = answer.next_frame().await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&first);
    assert!(!text.contains("snapshot"), "{text}");
}

#[rstest]
#[case::of_another_run("00000000-0000-4000-8000-000000000000/{seq}")]
#[case::of_a_time_to_come("{instance}/99999999")]
#[case::of_somebody_else("17")]
#[tokio::test]
async fn viewer_whose_place_is_not_known_begins_anew(#[case] id: &str) {
    let coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    events.next().await;
    let (instance, seq) = events.last_id.split_once('/').unwrap();
    let id = id.replace("{instance}", instance).replace("{seq}", seq);

    let mut again = EventStream::resume(coordinator.api, &id).await;

    let first = again.next().await.expect("the stream goes on");
    assert!(is_snapshot(&first), "{first:?}");
}

#[tokio::test]
async fn viewer_of_a_coordinator_that_has_restarted_begins_anew() {
    let mut coordinator = TestCoordinator::new().await;
    let mut events = EventStream::open(coordinator.api).await;
    events.next().await;
    let id = events.last_id.clone();
    drop(events);

    coordinator.restart().await;
    let mut again = EventStream::resume(coordinator.api, &id).await;

    let first = again.next().await.expect("the stream goes on");
    assert!(is_snapshot(&first), "{first:?}");
}

fn seq_of(event: &Event) -> Option<u64> {
    match event {
        Event::Snapshot { seq, .. }
        | Event::AgentChanged { seq, .. }
        | Event::AgentRemoved { seq, .. }
        | Event::Happened { seq, .. }
        | Event::Tick { seq, .. } => Some(*seq),
        Event::Resync => None,
    }
}

fn is_tick(event: &Event) -> bool {
    matches!(event, Event::Tick { .. })
}

fn is_snapshot(event: &Event) -> bool {
    matches!(event, Event::Snapshot { .. })
}

fn is_change_of(event: &Event, agent: &FakeAgent) -> bool {
    matches!(event, Event::AgentChanged { agent: told, .. } if told.id == agent.id && told.notes.is_some())
}

/// Reads until an agent is told to be as `expected`.
async fn changed(events: &mut EventStream, expected: impl Fn(&AgentView) -> bool) -> AgentView {
    let picked = events.until(|event| match event {
        Event::AgentChanged { agent, .. } => Some(*agent).filter(&expected),
        Event::Snapshot { .. }
        | Event::AgentRemoved { .. }
        | Event::Happened { .. }
        | Event::Tick { .. }
        | Event::Resync => None,
    });
    picked.await
}
