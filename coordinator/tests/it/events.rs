//! The stream of what happens.

use ollama_coordinator_common::protocol::event::Event;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use serde_json::json;

use crate::support::agent::FakeAgent;
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
        Event::AgentRemoved { id } => Some(id),
        Event::Snapshot { .. }
        | Event::AgentChanged { .. }
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

/// Reads until an agent is told to be as `expected`.
async fn changed(events: &mut EventStream, expected: impl Fn(&AgentView) -> bool) -> AgentView {
    let picked = events.until(|event| match event {
        Event::AgentChanged { agent } => Some(*agent).filter(&expected),
        Event::Snapshot { .. }
        | Event::AgentRemoved { .. }
        | Event::Tick { .. }
        | Event::Resync => None,
    });
    picked.await
}
