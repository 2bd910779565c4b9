//! What is remembered across an end, however it came, and what is never written.

use std::fs;

use http::StatusCode;
use ollama_coordinator_common::protocol::view::AgentStatus;
use serde_json::json;

use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;
use crate::support::process::Machine;

const LEGACY: &str = r#"[
  {"id": "11111111-1111-4111-8111-111111111111", "hostname": "gpu-1", "ip_address": "127.0.0.1",
   "port": 9, "ollama_version": "0.1.9", "status": "online",
   "last_heartbeat": "2025-10-30T01:02:03Z", "registered_at": "2025-10-29T00:00:00Z"},
  {"id": "not an id", "hostname": "gpu-2", "ip_address": "127.0.0.1"}
]"#;

#[tokio::test]
async fn registration_survives_sigkill_right_after_its_answer() {
    let machine = Machine::new();
    let process = machine.start().await;
    let agent = FakeAgent::new("gpu-1");

    let granted = agent.register(machine.api).await;
    process.kill().await;

    let _restarted = machine.start().await;
    let known = machine.api.agent(agent.id).await;
    assert_eq!(
        (known.machine_name.as_str(), known.epoch),
        ("gpu-1", granted.epoch)
    );
}

#[tokio::test]
async fn registry_of_the_earlier_product_is_taken_over_once_and_left_alone() {
    let machine = Machine::new();
    let legacy = machine.home().join(".llm-router/agents.json");
    fs::create_dir(legacy.parent().unwrap()).unwrap();
    fs::write(&legacy, LEGACY).unwrap();

    let process = machine.start().await;

    let agents = machine.api.agents().await;
    assert_eq!(agents.len(), 1);
    assert_eq!(
        (agents[0].machine_name.as_str(), agents[0].status),
        ("gpu-1", AgentStatus::Offline)
    );
    let ready = machine.api.get("/readyz").await.json().await;
    let said = ready["registry_detail"].as_str().unwrap();
    assert!(
        said.starts_with("1 agents imported from") && said.ends_with("1 entries skipped"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&legacy).unwrap(), LEGACY);
    machine
        .api
        .delete(&format!("/api/agents/{}", agents[0].id))
        .await;
    process.stop().await;
    let _restarted = machine.start().await;
    assert_eq!(machine.api.agents().await, [], "imported a second time");
}

#[tokio::test]
async fn registry_deleted_while_running_is_written_anew() {
    let coordinator = TestCoordinator::new().await;
    let (one, other) = (FakeAgent::new("one"), FakeAgent::new("other"));
    one.register(coordinator.api).await;
    fs::remove_file(coordinator.agents_file()).unwrap();

    other.register(coordinator.api).await;

    let text = fs::read_to_string(coordinator.agents_file()).unwrap();
    assert!(
        text.contains(&one.id.to_string()) && text.contains(&other.id.to_string()),
        "{text}"
    );
}

#[tokio::test]
async fn agent_newer_than_a_restored_backup_comes_back_and_no_epoch_is_used_twice() {
    let mut coordinator = TestCoordinator::new().await;
    let mut agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let backup = fs::read(coordinator.agents_file()).unwrap();
    agent.session = FakeAgent::new("").session;
    let latest = agent.register(coordinator.api).await.epoch;
    coordinator.stop().await;
    fs::write(coordinator.agents_file(), backup).unwrap();
    coordinator.start().await;
    let newer = json!({ "session": agent.session, "epoch": latest });

    let beat = agent
        .send(coordinator.api, &agent.path("/heartbeat"), &newer)
        .await;
    let mut registration = agent.registration();
    registration["epoch"] = json!(latest);
    let mut again = agent
        .send(coordinator.api, "/api/agents", &registration)
        .await;

    assert_eq!(
        (beat.status, again.status),
        (StatusCode::NOT_FOUND, StatusCode::OK)
    );
    assert!(again.json().await["epoch"].as_u64() > Some(latest));
}

#[tokio::test]
async fn heartbeats_and_unchanged_registrations_do_not_touch_the_disk() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let before = fs::read_to_string(coordinator.agents_file()).unwrap();

    for _ in 0..20 {
        assert_eq!(agent.beat(coordinator.api).await.status, StatusCode::OK);
        agent.register(coordinator.api).await;
    }

    let after = fs::read_to_string(coordinator.agents_file()).unwrap();
    assert_eq!(after, before, "each commit has a generation of its own");
}
