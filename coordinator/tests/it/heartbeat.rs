//! Staying in the registry, leaving it, and who one is.

use http::{Method, StatusCode};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::AgentStatus;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::{Answer, Api, request};
use crate::support::coordinator::TestCoordinator;

#[tokio::test]
async fn heartbeat_is_answered_with_the_terms() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let granted = agent.register(coordinator.api).await;

    let mut renewed = agent.beat(coordinator.api).await;

    assert_eq!(renewed.status, StatusCode::OK);
    let renewed = renewed.json().await;
    assert_eq!(renewed["lease"], json!(granted.lease));
    assert_eq!(renewed["coordinator"], json!(granted.coordinator));
    assert_eq!(
        (&renewed["status"], &renewed["epoch"]),
        (&json!("online"), &json!(1))
    );
}

#[tokio::test]
async fn empty_body_renews_too() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let empty = request(Method::POST, &agent.path("/heartbeat"), "");

    let renewed = coordinator.api.send(agent.signed(empty)).await;

    assert_eq!(renewed.status, StatusCode::OK);
}

#[tokio::test]
async fn unknown_agent_is_told_to_register_again() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");

    let problem = agent.beat(coordinator.api).await.problem(404).await;

    insta::assert_json_snapshot!("unknown_agent", problem, { ".request_id" => "[request id]" });
}

#[tokio::test]
async fn heartbeat_with_another_secret_or_none_changes_nothing() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let stranger = FakeAgent {
        id: agent.id,
        ..FakeAgent::new("stranger")
    };
    let report = json!({ "runtime": { "status": "not_answering", "models": [] } });

    let signed = stranger
        .send(coordinator.api, &agent.path("/heartbeat"), &report)
        .await;
    let bare = coordinator
        .api
        .post(&agent.path("/heartbeat"), &report)
        .await;
    let goodbye = coordinator.api.delete(&agent.path("/session")).await;

    for mut refused in [signed, bare, goodbye] {
        assert_eq!(refused.problem(403).await["code"], "wrong_secret");
    }
    let known = coordinator.api.agent(agent.id).await;
    assert_eq!(known.status, AgentStatus::Online);
    assert_eq!(known.runtime.version.as_deref(), Some("0.12.0"));
}

#[tokio::test]
async fn heartbeat_updates_what_is_shown_of_the_runtime_and_the_load() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let body = json!({
        "session": agent.session, "seq": 2, "metrics": { "cpu_percent": 12.5 },
        "runtime": { "status": "running", "version": "0.13.0", "models": [{ "name": "a:latest" }] },
    });
    let older = json!({
        "session": agent.session, "seq": 1,
        "runtime": { "status": "running", "version": "0.12.0", "models": [] },
    });

    agent
        .send(coordinator.api, &agent.path("/heartbeat"), &body)
        .await;
    let reordered = agent
        .send(coordinator.api, &agent.path("/heartbeat"), &older)
        .await;

    assert_eq!(reordered.status, StatusCode::OK);
    let shown = coordinator.api.agent(agent.id).await;
    assert_eq!(shown.ollama_version.as_deref(), Some("0.13.0"));
    assert_eq!(shown.models[0].name, "a:latest");
    assert_eq!(
        shown.metrics.and_then(|metrics| metrics.cpu_percent),
        Some(12.5)
    );
}

#[tokio::test]
async fn goodbye_is_offline_at_once_and_keeps_the_record() {
    let mut coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;

    let left = agent.leave(coordinator.api).await;

    assert_eq!(left.status, StatusCode::NO_CONTENT);
    assert_eq!(
        status(coordinator.api, agent.id).await,
        AgentStatus::Offline
    );
    coordinator.restart().await;
    assert_eq!(
        status(coordinator.api, agent.id).await,
        AgentStatus::Offline
    );
    assert_eq!(agent.beat(coordinator.api).await.status, StatusCode::OK);
    assert_eq!(status(coordinator.api, agent.id).await, AgentStatus::Online);
}

#[tokio::test]
async fn goodbye_of_an_earlier_session_is_ignored() {
    let coordinator = TestCoordinator::new().await;
    let earlier = FakeAgent::new("gpu-1");
    let later = FakeAgent {
        session: FakeAgent::new("").session,
        ..earlier.clone()
    };
    earlier.register(coordinator.api).await;
    later.register(coordinator.api).await;

    let late = earlier.leave(coordinator.api).await;

    assert_eq!(late.status, StatusCode::NO_CONTENT);
    assert_eq!(status(coordinator.api, later.id).await, AgentStatus::Online);
}

#[tokio::test]
async fn two_machines_with_one_name_are_two_records() {
    let coordinator = TestCoordinator::new().await;
    let (one, other) = (FakeAgent::new("ubuntu"), FakeAgent::new("ubuntu"));

    one.register(coordinator.api).await;
    other.register(coordinator.api).await;

    let names: Vec<_> = coordinator
        .api
        .agents()
        .await
        .into_iter()
        .map(|a| a.machine_name)
        .collect();
    assert_eq!(names, ["ubuntu", "ubuntu"]);
}

#[tokio::test]
async fn renamed_machine_keeps_its_record() {
    let coordinator = TestCoordinator::new().await;
    let before = FakeAgent::new("old name");
    let after = FakeAgent {
        name: "new name".to_owned(),
        ..before.clone()
    };

    before.register(coordinator.api).await;
    after.register(coordinator.api).await;

    let agents = coordinator.api.agents().await;
    assert_eq!(agents.len(), 1);
    assert_eq!(
        (agents[0].id, &*agents[0].machine_name),
        (before.id, "new name")
    );
}

#[tokio::test]
async fn two_runtimes_on_one_machine_are_two_records() {
    let coordinator = TestCoordinator::new().await;
    let one = FakeAgent::new("gpu-1");
    let mut other = FakeAgent::new("gpu-1");
    other.runtime.set_port(10);

    one.register(coordinator.api).await;
    other.register(coordinator.api).await;

    let agents = coordinator.api.agents().await;
    let mut ports: Vec<_> = agents.iter().map(|agent| agent.port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [9, 10]);
}

#[tokio::test]
async fn agent_that_moves_is_shown_where_it_is_now() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let mut moved = agent.clone();
    moved.runtime = ([127, 0, 0, 2], 9).into();

    agent.register(coordinator.api).await;
    moved.register(coordinator.api).await;

    let shown = coordinator.api.agent(agent.id).await;
    assert_eq!(shown.ip_address.to_string(), "127.0.0.2");
}

#[tokio::test]
async fn of_two_live_processes_with_one_id_the_later_is_told_to_make_its_own() {
    let coordinator = TestCoordinator::new().await;
    let original = FakeAgent::new("gpu-1");
    let clone = FakeAgent {
        session: FakeAgent::new("").session,
        ..original.clone()
    };
    original.register(coordinator.api).await;
    clone.register(coordinator.api).await;

    assert_eq!(beat_code(&clone, coordinator.api).await, Value::Null);
    assert_eq!(beat_code(&original, coordinator.api).await, Value::Null);
    let proven = beat_code(&original, coordinator.api).await;
    assert_eq!(proven, "unknown_agent", "it has to register again");
    original.register(coordinator.api).await;

    let verdict = beat_code(&clone, coordinator.api).await;
    assert_eq!(verdict, "duplicate_identity");
    assert_eq!(beat_code(&original, coordinator.api).await, Value::Null);
    let mut again = clone
        .send(coordinator.api, "/api/agents", &clone.registration())
        .await;
    assert_eq!(again.problem(409).await["code"], "duplicate_identity");
    let mut own = FakeAgent::new("gpu-1").registration();
    own["cloned_from"] = json!(original.id);
    own["port"] = json!(10);
    assert_eq!(
        coordinator.api.post("/api/agents", &own).await.status,
        StatusCode::CREATED
    );
    assert_eq!(coordinator.api.agents().await.len(), 2);
}

async fn status(api: Api, id: AgentId) -> AgentStatus {
    api.agent(id).await.status
}

/// Returns the code of the refusal of a heartbeat; null when it was taken.
async fn beat_code(agent: &FakeAgent, api: Api) -> Value {
    let mut answer: Answer = agent.beat(api).await;
    answer.json().await["code"].clone()
}
