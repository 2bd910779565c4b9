//! Real agents against a real coordinator.

use std::collections::BTreeSet;
use std::time::Duration;

use ollama_agent::config::Link;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::Event;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView, AgentWarning};
use ollama_simulator::runtime::script::FailureMode;
use ollama_simulator::wait::{PATIENCE, wait_for};
use serde_json::json;

use crate::support::api::Api;
use crate::support::coordinator::TestCoordinator;
use crate::support::events::EventStream;
use crate::support::machine::AgentMachine;

const INTERVAL: Duration = Duration::from_millis(200);
const TTL: Duration = Duration::from_millis(900);

#[tokio::test]
async fn agent_joins_serves_and_leaves() {
    let coordinator = TestCoordinator::new().await;
    let mut machine = AgentMachine::new(coordinator.api, "gpu-1").await;
    machine.start();
    let joined = wait_until_routable(coordinator.api, 1).await;
    let chat = json!({ "model": "simulated-small", "messages": [], "stream": false });

    let answer = coordinator.api.post("/api/chat", &chat).await.json().await;
    machine.stop().await;

    assert_eq!(answer["done"], true, "{answer}");
    let left = coordinator.api.agent(joined[0].id).await;
    assert_eq!(
        (left.machine_name.as_str(), left.status),
        ("gpu-1", AgentStatus::Offline)
    );
}

#[tokio::test]
async fn killed_machine_is_offline_and_its_agent_comes_back_as_itself() {
    let coordinator = TestCoordinator::builder()
        .lease(INTERVAL, TTL)
        .start()
        .await;
    let mut machine = AgentMachine::new(coordinator.api, "gpu-1").await;
    machine.start();
    let id = wait_until_routable(coordinator.api, 1).await[0].id;

    machine.kill().await;
    machine.runtime.set_failure(FailureMode::Refuse).await;
    let offline = |agent: &AgentView| agent.status == AgentStatus::Offline;
    coordinator.api.wait_for_agent(id, "offline", offline).await;
    machine.runtime.set_failure(FailureMode::None).await;
    machine.start();

    let back = coordinator.api.wait_until_routable(id).await;
    assert_eq!(back.epoch, 2);
    assert_eq!(coordinator.api.agents().await.len(), 1);
}

#[tokio::test]
async fn runtime_whose_agent_was_killed_serves_on_with_a_warning() {
    let coordinator = TestCoordinator::builder()
        .lease(INTERVAL, TTL)
        .start()
        .await;
    let mut machine = AgentMachine::new(coordinator.api, "gpu-1").await;
    machine.config.link = Link::Direct { advertised: None };
    machine.start();
    let id = wait_until_routable(coordinator.api, 1).await[0].id;
    let mut events = EventStream::open(coordinator.api).await;
    let chat = json!({ "model": "simulated-small", "messages": [], "stream": false });

    machine.kill().await;

    let is_kept = |agent: &AgentView| agent.warning == Some(AgentWarning::HeartbeatsMissing);
    let kept = coordinator.api.wait_for_agent(id, "kept", is_kept).await;
    assert_eq!((kept.status, kept.routable), (AgentStatus::Online, true));
    let told = |event| matches!(event, Event::AgentChanged { agent, .. } if is_kept(&agent));
    events.until(|event| told(event).then_some(())).await;
    let answer = coordinator.api.post("/api/chat", &chat).await.json().await;
    assert_eq!(answer["done"], true, "{answer}");
    machine.runtime.set_failure(FailureMode::Refuse).await;
    let offline = |agent: &AgentView| agent.status == AgentStatus::Offline;
    coordinator.api.wait_for_agent(id, "offline", offline).await;
}

#[tokio::test]
async fn agents_come_back_with_their_ids_when_the_registry_was_emptied() {
    let mut coordinator = TestCoordinator::builder()
        .lease(INTERVAL, TTL)
        .start()
        .await;
    let mut machines = Vec::new();
    for n in 0..3 {
        let mut machine = AgentMachine::new(coordinator.api, &format!("gpu-{n}")).await;
        machine.start();
        machines.push(machine);
    }
    let before = ids(&wait_until_routable(coordinator.api, 3).await);

    coordinator.stop().await;
    for entry in std::fs::read_dir(coordinator.data_dir()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    coordinator.start().await;

    let after = ids(&wait_until_routable(coordinator.api, 3).await);
    assert_eq!(after, before);
    for machine in &mut machines {
        machine.stop().await;
    }
}

#[tokio::test]
async fn agent_waits_for_a_coordinator_that_is_not_there_yet() {
    let mut coordinator = TestCoordinator::new().await;
    coordinator.stop().await;
    let mut machine = AgentMachine::new(coordinator.api, "early bird").await;
    machine.start();

    coordinator.start().await;

    let agents = wait_until_routable(coordinator.api, 1).await;
    assert_eq!(agents[0].machine_name, "early bird");
    machine.stop().await;
}

async fn wait_until_routable(api: Api, count: usize) -> Vec<AgentView> {
    let all = |agents: &Vec<AgentView>| {
        agents.len() == count && agents.iter().all(|agent| agent.routable)
    };
    wait_for("all agents routable", PATIENCE, || api.agents(), all).await
}

fn ids(agents: &[AgentView]) -> BTreeSet<AgentId> {
    agents.iter().map(|agent| agent.id).collect()
}
