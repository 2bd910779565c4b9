//! What the coordinator finds when it dials the addresses that agents name.

use ollama_coordinator_common::protocol::view::UnroutableReason;
use ollama_simulator::fault_proxy::FaultProxy;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;

use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;

#[tokio::test]
async fn way_back_to_the_coordinator_is_not_taken_for_a_runtime() {
    let coordinator = TestCoordinator::new().await;
    let forward = FaultProxy::start(coordinator.api.addr()).await.unwrap();
    let mut agent = FakeAgent::new("loop").with_models(&["a:latest"]);
    agent.runtime = forward.addr();

    agent.register(coordinator.api).await;

    let found = coordinator
        .api
        .wait_for_agent(agent.id, "looked at", |agent| {
            agent.reason == Some(UnroutableReason::Unreachable)
        })
        .await;
    assert!(!found.routable);
}

/// Other machines need addresses of their own, and only Linux has more than one on loopback.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn machine_that_never_answers_does_not_hold_up_the_check_of_another() {
    use std::time::Duration;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    let coordinator = TestCoordinator::new().await;
    let mut silent = Vec::new();
    for n in 0..70 {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let mut agent = FakeAgent::new(&format!("silent-{n}"));
        agent.runtime = listener.local_addr().unwrap();
        agent.register(coordinator.api).await;
        silent.push(listener);
    }
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let good = FakeAgent::in_front_of(&runtime, "good");

    let joined = timeout(Duration::from_secs(3), good.join(coordinator.api)).await;

    assert!(joined.is_ok(), "it was checked after those that are silent");
}
