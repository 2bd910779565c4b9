//! A machine that its owner has paused: who asks it, what goes on, and what everybody sees.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use ollama_simulator::runtime::script::RuntimeScript;
use serde_json::json;

use crate::support::agent::FakeAgent;
use crate::support::chat::{ask, chat};
use crate::support::coordinator::TestCoordinator;
use crate::support::machine::AgentMachine;

/// Longer than a test: what comes before it came at once.
const LONG: Duration = Duration::from_mins(5);

fn is_paused(agent: &AgentView) -> bool {
    agent.reason == Some(UnroutableReason::Paused)
}

#[tokio::test]
async fn paused_machine_finishes_what_runs_and_gets_nothing_more() {
    let lease = TestCoordinator::builder().lease(LONG, 3 * LONG);
    let coordinator = lease.start().await;
    let api = coordinator.api;
    let script = RuntimeScript {
        tokens_per_second: NonZeroU32::new(50),
        answer_tokens: NonZeroU32::new(25),
        ..RuntimeScript::default()
    };
    let mut machine = AgentMachine::with(api, "gpu-1", script).await;
    machine.start();
    machine.wait_until_routable().await;
    let id = api.agents().await[0].id;
    let mut running = api.post("/api/chat", &chat("hi")).await;
    running.next_frame().await.unwrap();

    machine.control().pause(Some(LONG)).await.unwrap();

    let paused = api.wait_for_agent(id, "paused", is_paused).await;
    let mut refused = api.post("/api/chat", &chat("hi")).await;
    let rest = running.text().await;
    assert!(!paused.routable && !paused.draining, "{paused:?}");
    assert!(paused.paused_until.unwrap() > paused.last_seen);
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let why = refused.text().await;
    assert!(why.contains("paused by its owner"), "{why}");
    assert!(rest.contains("\"done\":true"), "{rest}");
    machine.control().resume().await.unwrap();
    let resumed = api.wait_until_routable(id).await;
    assert_eq!(resumed.paused_until, None);
    ask(api, 1).await;
}

#[tokio::test]
async fn requests_go_to_the_machines_that_are_not_paused() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let mut machines = [
        AgentMachine::new(api, "gpu-1").await,
        AgentMachine::new(api, "gpu-2").await,
    ];
    for machine in &mut machines {
        machine.start();
        machine.wait_until_routable().await;
    }
    machines[0].control().pause(None).await.unwrap();
    let agents = api.agents().await;
    let first = agents.iter().find(|agent| agent.machine_name == "gpu-1");
    let id = first.unwrap().id;
    let paused = api.wait_for_agent(id, "paused", is_paused).await;
    let before = machines[0].runtime.recent_requests_to("/api/chat");

    ask(api, 8).await;

    assert_eq!(machines[0].runtime.recent_requests_to("/api/chat"), before);
    assert_eq!(paused.paused_until, None);
}

#[tokio::test]
async fn pause_is_remembered_by_a_coordinator_that_starts_again() {
    let mut coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let agent = FakeAgent::new("gpu-1");
    agent.register(api).await;
    let paused = json!({ "session": agent.session, "paused": { "remaining_ms": 600_000 } });
    agent.send(api, &agent.path("/heartbeat"), &paused).await;
    let until = api.agent(agent.id).await.paused_until.unwrap();

    coordinator.restart().await;

    let known = api.agent(agent.id).await;
    assert_eq!(
        (known.reason, known.paused_until),
        (Some(UnroutableReason::Paused), Some(until))
    );
    agent.beat(api).await;
    let resumed = api.agent(agent.id).await;
    assert_ne!(resumed.reason, Some(UnroutableReason::Paused));
    assert_eq!(resumed.paused_until, None);
}

#[tokio::test]
async fn agent_that_registers_while_paused_gets_nothing() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let agent = FakeAgent::new("gpu-1");
    let mut registration = agent.registration();
    registration["paused"] = json!({});

    agent.send(api, "/api/agents", &registration).await;

    let known = api.agent(agent.id).await;
    assert_eq!(known.reason, Some(UnroutableReason::Paused));
    let metrics = api.get("/metrics").await.text().await;
    let line = "ollama_coordinator_agents_unroutable{reason=\"paused\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    let mut answer = api
        .post("/api/pull?agent=gpu-1", &json!({ "model": "a" }))
        .await;
    let text = answer.text().await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
    assert!(text.contains("paused by its owner"), "{text}");
}

#[tokio::test]
async fn end_of_a_pause_does_not_move_with_every_heartbeat() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let agent = FakeAgent::new("gpu-1");
    agent.register(api).await;
    let beat = async |remaining_ms: u64| {
        let paused =
            json!({ "session": agent.session, "paused": { "remaining_ms": remaining_ms } });
        agent.send(api, &agent.path("/heartbeat"), &paused).await;
        api.agent(agent.id).await.paused_until.unwrap()
    };

    let first = beat(600_000).await;
    let late = beat(600_500).await;
    let longer = beat(1_200_000).await;

    assert_eq!(first, late);
    assert!(longer > first);
}
