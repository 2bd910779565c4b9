//! Joining the registry, and joining it again.

use futures_util::future::join_all;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::assert_body;
use crate::support::coordinator::TestCoordinator;

#[rstest]
#[case::collection("/api/agents", json!({ "machine_name": "gpu-1", "ip_address": "127.0.0.1",
    "port": 9, "ollama_version": "0.12.0" }))]
#[case::seed_route("/api/agents/register", json!({ "hostname": "gpu-1", "ip_address": "127.0.0.1",
    "ollama_port": 9, "ollama_version": "0.12.0" }))]
#[tokio::test]
async fn plain_registration_creates_once_and_is_known_again(
    #[case] path: &str,
    #[case] body: Value,
) {
    let coordinator = TestCoordinator::new().await;

    let mut created = coordinator.api.post(path, &body).await;
    let mut again = coordinator.api.post(path, &body).await;

    assert_eq!((created.status.as_u16(), again.status.as_u16()), (201, 200));
    let (created, again) = (created.json().await, again.json().await);
    assert_eq!(created, again);
    wait_until_unreachable(coordinator.api, created["id"].as_str().unwrap()).await;
    assert_body!("registered", created);
    let shown = format!("/api/agents/{}", created["id"].as_str().unwrap());
    assert_body!(
        "agent_registered_by_hand",
        coordinator.api.get(&shown).await.json().await
    );
}

#[tokio::test]
async fn machine_name_alone_is_enough() {
    let coordinator = TestCoordinator::new().await;
    let body = json!({ "machine_name": "gpu-1" });

    let registered = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .json()
        .await;

    let agent = coordinator
        .api
        .agent(registered["id"].as_str().unwrap())
        .await;
    assert_eq!(agent.ip_address.to_string(), "127.0.0.1");
    assert_eq!(agent.port, 11434);
}

#[tokio::test]
async fn everything_an_agent_says_is_shown() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1").with_models(&["llama3.2:latest"]);
    let mut body = agent.registration();
    body["agent_version"] = json!("0.1.0");
    body["system_info"] = json!({ "os": "Debian GNU/Linux 12", "arch": "x86_64", "cpu": "EPYC",
        "cpu_cores": 8, "memory_bytes": 64_u64 << 30,
        "gpus": [{ "name": "RTX 4090", "memory_bytes": 24_u64 << 30, "driver": "550.54" }] });
    body["runtime"]["loaded_models"] = json!([{ "name": "llama3.2:latest", "size": 7 }]);
    body["runtime"]["slots"] = json!(4);
    body["a_field_of_tomorrow"] = json!({ "is": "ignored" });
    body["system_info"]["another"] = json!([1]);

    let created = agent.send(coordinator.api, "/api/agents", &body).await;

    assert_eq!(created.status, 201);
    wait_until_unreachable(coordinator.api, agent.id).await;
    assert_body!(
        "agent_in_full",
        coordinator.api.get(&agent.path("")).await.json().await
    );
}

#[tokio::test]
async fn same_agent_keeps_its_id_its_record_and_its_epoch() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");

    let first = agent.register(coordinator.api).await;
    let again = agent.register(coordinator.api).await;

    assert_eq!((first.id, again.id), (agent.id, agent.id));
    assert_eq!((first.epoch, again.epoch), (1, 1));
    assert_eq!(coordinator.api.agents().await.len(), 1);
}

#[tokio::test]
async fn new_process_of_an_agent_gets_the_next_epoch() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let restarted = FakeAgent {
        session: FakeAgent::new("").session,
        ..agent.clone()
    };

    agent.register(coordinator.api).await;
    let again = restarted.register(coordinator.api).await;

    assert_eq!((again.id, again.epoch), (agent.id, 2));
}

#[tokio::test]
async fn many_copies_of_one_registration_at_once_make_one_record() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let by_hand = json!({ "machine_name": "by hand", "port": 10 });

    let with_id = join_all((0..40).map(|_| agent.register(coordinator.api)));
    let without = join_all((0..40).map(|_| register_id(coordinator.api, &by_hand)));
    let (with_id, without) = tokio::join!(with_id, without);

    assert!(
        with_id
            .iter()
            .all(|granted| (granted.id, granted.epoch) == (agent.id, 1))
    );
    assert!(without.iter().all(|id| *id == without[0]), "{without:?}");
    assert_eq!(coordinator.api.agents().await.len(), 2);
}

#[tokio::test]
async fn registration_without_an_id_is_matched_by_endpoint_never_by_name() {
    let coordinator = TestCoordinator::new().await;
    let at = |name: &str, port: u16| json!({ "machine_name": name, "port": port });

    let first = register_id(coordinator.api, &at("gpu", 10)).await;
    let other_port = register_id(coordinator.api, &at("gpu", 12)).await;
    let renamed = register_id(coordinator.api, &at("renamed", 10)).await;

    assert_eq!(renamed, first);
    assert_ne!(other_port, first);
    assert_eq!(coordinator.api.agent(first).await.machine_name, "renamed");
    assert_eq!(coordinator.api.agents().await.len(), 2);
}

async fn register_id(api: Api, body: &Value) -> AgentId {
    let mut answer = api.post("/api/agents", body).await;
    assert!(answer.status.is_success(), "{}", answer.text().await);
    let id = answer.json().await["id"].clone();
    serde_json::from_value(id).expect("it is an id")
}

/// Waits until the coordinator has found out that nothing answers at the agent's address.
async fn wait_until_unreachable(api: Api, id: impl ToString) {
    let is_unreachable = |agent: &AgentView| agent.reason == Some(UnroutableReason::Unreachable);
    api.wait_for_agent(id, "unreachable", is_unreachable).await;
}
