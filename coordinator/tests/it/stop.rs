//! How a coordinator ends when it is asked to: what was promised is kept, and nobody waits for ever.

use http::{Method, StatusCode};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::fault_proxy::{FaultProxy, ProxyFault};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::chat::chat;
use crate::support::process::Machine;

#[tokio::test]
async fn registrations_acknowledged_while_it_stops_are_kept() {
    let machine = Machine::new();
    let process = machine.start().await;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(register_until_refused(machine.api));
    }
    wait_for(
        "some agents",
        PATIENCE,
        || machine.api.agents(),
        |agents| agents.len() > 20,
    )
    .await;

    let status = process.stop().await;

    assert!(status.success(), "{status}");
    let acknowledged = clients.join_all().await.concat();
    let _restarted = machine.start().await;
    let known: Vec<_> = machine
        .api
        .agents()
        .await
        .iter()
        .map(|agent| agent.id)
        .collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !known.contains(id))
        .collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
}

#[tokio::test]
async fn second_sigterm_does_not_wait_for_requests() {
    let machine = Machine::new();
    let process = machine.start().await;
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let agent = FakeAgent::in_front_of(&runtime, "gpu-1");
    agent.join(machine.api).await;
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 10 })
        .await;
    let mut stream = machine.api.post("/api/chat", &chat("hi")).await;
    stream.next_frame().await.unwrap();

    process.signal(Signal::TERM);
    wait_until_refused(machine.api).await;
    process.signal(Signal::TERM);
    process.ended(PATIENCE).await;

    let (_, error) = stream.read_all().await;
    assert!(error.is_some(), "the stream must not look complete");
}

#[tokio::test]
async fn request_in_flight_is_finished_before_the_end() {
    let machine = Machine::new();
    let process = machine.start().await;
    let runtime = ScriptedRuntime::start(RuntimeScript::default()).await;
    let runtime = runtime.unwrap();
    let line = FaultProxy::start(runtime.addr()).await.unwrap();
    let mut agent = FakeAgent::in_front_of(&runtime, "gpu-1");
    agent.runtime = line.addr();
    agent.join(machine.api).await;
    line.set_fault(ProxyFault::Stall).await;
    let mut clients = JoinSet::new();
    let (api, mut question) = (machine.api, chat("hi"));
    question["stream"] = json!(false);
    clients.spawn(async move { api.post("/api/chat", &question).await.json().await });
    let busy = |agent: &AgentView| agent.in_flight == 1;
    machine.api.wait_for_agent(agent.id, "busy", busy).await;

    process.signal(Signal::TERM);
    wait_until_refused(machine.api).await;
    line.set_fault(ProxyFault::None).await;
    let status = process.ended(PATIENCE).await;

    assert!(status.success(), "{status}");
    assert_eq!(clients.join_all().await[0]["done"], true);
}

/// Registers new agents until the coordinator is gone; returns those that were accepted.
async fn register_until_refused(api: Api) -> Vec<AgentId> {
    let mut accepted = Vec::new();
    loop {
        let agent = FakeAgent::new("gpu");
        let body = agent.registration().to_string();
        let registration = agent.signed(request(Method::POST, "/api/agents", body));
        match api.try_send(registration).await {
            Ok(answer) if answer.status == StatusCode::CREATED => accepted.push(agent.id),
            Ok(answer) => assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE),
            Err(_gone) => return accepted,
        }
    }
}

/// Waits until no new connection is taken: the stop has begun.
async fn wait_until_refused(api: Api) {
    let is_refused = async || api.try_send(request(Method::GET, "/", "")).await.is_err();
    wait_for("no new connections", PATIENCE, is_refused, |refused| {
        *refused
    })
    .await;
}
