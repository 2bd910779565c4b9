//! Hundreds of agents at once, over a restart of their coordinator.

use ollama_coordinator_common::protocol::view::AgentStatus;
use ollama_simulator::fleet::{Fleet, FleetOptions};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};

use crate::support::process::Machine;

const AGENTS: usize = 300;

#[tokio::test]
async fn fleet_outlives_its_coordinator_without_a_false_offline() {
    let machine = Machine::new();
    let process = machine.start().await;
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let options = FleetOptions::new(machine.api.addr(), runtime.addr(), AGENTS);
    let fleet = Fleet::start(options).await.unwrap();
    let acknowledged = async || fleet.acknowledged();
    wait_for("all registered", PATIENCE * 2, acknowledged, |all| {
        all.len() == AGENTS
    })
    .await;
    let epochs = fleet.acknowledged();

    process.kill().await;
    let _restarted = machine.start().await;

    let recovering = async || {
        let agents = machine.api.agents().await;
        assert_eq!(agents.len(), AGENTS);
        let offline = agents
            .iter()
            .filter(|agent| agent.status == AgentStatus::Offline);
        assert_eq!(offline.count(), 0);
        let ready = machine.api.get("/readyz").await.json().await;
        ready["recovering"].as_u64()
    };
    wait_for("all heard of again", PATIENCE * 2, recovering, |count| {
        *count == Some(0)
    })
    .await;
    assert_eq!(fleet.acknowledged(), epochs, "nobody had to register again");
    fleet.kill().await;
}
