//! Agents that carry their traffic over a connection which they have dialled.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use ollama_coordinator_common::id::SessionId;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::tunnel::Bearer;
use ollama_simulator::wait::{PATIENCE, wait_for};
use serde_json::json;

use crate::support::agent::FakeAgent;
use crate::support::chat::{MODEL, ask, chat, joined};
use crate::support::coordinator::TestCoordinator;
use crate::support::tunnel::{joined_by_tunnel, open as open_tunnel};

async fn runtime() -> ScriptedRuntime {
    let script = RuntimeScript {
        answer_tokens: NonZeroU32::new(20),
        ..RuntimeScript::default()
    };
    ScriptedRuntime::start(script)
        .await
        .expect("a port is free")
}

fn behind_nat(runtime: &ScriptedRuntime) -> FakeAgent {
    let mut agent = FakeAgent::in_front_of(runtime, "behind-nat");
    agent.link = LinkKind::Tunnel;
    agent
}

#[tokio::test]
async fn request_goes_through_the_tunnel_and_its_answer_comes_back() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let (agent, _tunnel) = joined_by_tunnel(coordinator.api, &runtime).await;

    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-coordinator-agent"), agent.id.to_string());
    assert!(answer.text().await.contains("\"done\":true"));
    assert_eq!(coordinator.api.agent(agent.id).await.link, LinkKind::Tunnel);
}

#[tokio::test]
async fn agent_without_its_tunnel_gets_no_requests_and_says_so() {
    let coordinator = TestCoordinator::new().await;
    let agent = behind_nat(&runtime().await);

    agent.register(coordinator.api).await;

    let shown = coordinator.api.agent(agent.id).await;
    assert_eq!(shown.reason, Some(UnroutableReason::NoTunnel));
    let answer = coordinator.api.post("/api/chat", &chat("hi")).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn request_waits_for_a_tunnel_that_was_just_lost() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let (agent, tunnel) = joined_by_tunnel(coordinator.api, &runtime).await;
    drop(tunnel);
    let is_lost = |agent: &AgentView| !agent.routable;
    let api = coordinator.api;
    api.wait_for_agent(agent.id, "lost", is_lost).await;
    let question = chat("hi");
    let asked = api.post("/api/chat", &question);
    let bearer = Bearer::Runtime(runtime.addr());

    let (mut answer, tunnel) = tokio::join!(asked, open_tunnel(coordinator.api, &agent, bearer));

    let text = answer.text().await;
    assert_eq!(answer.status, StatusCode::OK, "{text}");
    drop(tunnel);
}

#[tokio::test]
async fn request_that_waits_for_a_slot_goes_on_waiting_when_the_tunnel_is_lost() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let runtime = runtime().await;
    let agent = behind_nat(&runtime);
    agent.register(api).await;
    let one_slot = json!({ "capacity": 1 });
    api.patch(&agent.path(""), &one_slot).await;
    let tunnel = open_tunnel(api, &agent, Bearer::Silent).await;
    api.wait_until_routable(agent.id).await;
    let question = chat("hi");
    let ask = || api.post("/api/chat", &question);
    let mut both = Box::pin(async { tokio::join!(ask(), ask()) });
    let queued = async || api.get("/metrics").await.text().await;
    let one = "_queued{model=\"simulated-small\"} 1";
    tokio::select! {
        _ = &mut both => panic!("nobody answers"),
        _ = wait_for("queued", PATIENCE, queued, |page| page.contains(one)) => {}
    }

    drop(tunnel);
    let returns = async {
        api.wait_for_agent(agent.id, "lost", |agent| !agent.routable)
            .await;
        open_tunnel(api, &agent, Bearer::Runtime(runtime.addr())).await
    };
    let ((first, second), tunnel) = tokio::join!(both, returns);

    assert_eq!([first.status, second.status], [StatusCode::OK; 2]);
    drop((first, second, tunnel));
}

#[tokio::test]
async fn tunnel_that_is_opened_renews_the_lease() {
    let ttl = Duration::from_secs(2);
    let coordinator = TestCoordinator::builder()
        .lease(Duration::from_millis(500), ttl)
        .start()
        .await;
    let runtime = runtime().await;
    let (agent, tunnel) = joined_by_tunnel(coordinator.api, &runtime).await;
    let before = coordinator.api.agent(agent.id).await.last_seen;

    let bearer = Bearer::Runtime(runtime.addr());
    let newer = open_tunnel(coordinator.api, &agent, bearer).await;

    let is_renewed = |agent: &AgentView| agent.last_seen > before;
    let api = coordinator.api;
    api.wait_for_agent(agent.id, "renewed", is_renewed).await;
    drop((tunnel, newer));
}

#[tokio::test]
async fn request_without_an_answer_goes_elsewhere_when_the_tunnel_is_cut() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let agent = behind_nat(&runtime);
    agent.register(coordinator.api).await;
    let tunnel = open_tunnel(coordinator.api, &agent, Bearer::Silent).await;
    coordinator.api.wait_until_routable(agent.id).await;
    let question = chat("hi");
    let asked = coordinator.api.post("/api/chat", &question);
    let cut = async {
        let is_asked = |agent: &AgentView| agent.in_flight == 1;
        let api = coordinator.api;
        api.wait_for_agent(agent.id, "asked", is_asked).await;
        let (other, _agent) = joined(coordinator.api, RuntimeScript::default()).await;
        drop(tunnel);
        other
    };

    let (mut answer, other) = tokio::join!(asked, cut);

    let text = answer.text().await;
    assert_eq!(answer.status, StatusCode::OK, "{text}");
    assert_eq!(answer.header("x-coordinator-attempts"), "2");
    assert_eq!(other.recent_requests_to("/api/chat"), 1);
}

#[tokio::test]
async fn request_that_the_agent_refuses_goes_elsewhere() {
    let coordinator = TestCoordinator::new().await;
    let agent = behind_nat(&runtime().await);
    agent.register(coordinator.api).await;
    let _tunnel = open_tunnel(coordinator.api, &agent, Bearer::Refuses).await;
    coordinator.api.wait_until_routable(agent.id).await;
    let (_runtime, _agent) = joined(coordinator.api, RuntimeScript::default()).await;

    ask(coordinator.api, 6).await;
}

#[tokio::test]
async fn requests_that_the_tunnel_has_no_room_for_wait_and_are_answered() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let agent = behind_nat(&runtime);
    agent.register(coordinator.api).await;
    let bearer = Bearer::OneAtATime(runtime.addr());
    let _tunnel = open_tunnel(coordinator.api, &agent, bearer).await;
    coordinator.api.wait_until_routable(agent.id).await;
    runtime
        .change(|script| script.first_token_delay = Duration::from_millis(50))
        .await;

    let all = async {
        tokio::join!(
            ask(coordinator.api, 2),
            ask(coordinator.api, 2),
            ask(coordinator.api, 2)
        )
    };
    let several = |agent: &AgentView| agent.in_flight == 3;
    let api = coordinator.api;
    tokio::join!(all, api.wait_for_agent(agent.id, "asked thrice", several));

    assert_eq!(runtime.recent_requests_to("/api/chat"), 6);
}

#[tokio::test]
async fn agent_whose_tunnel_is_cut_gets_no_requests_and_then_is_offline() {
    let coordinator = TestCoordinator::builder()
        .lease(Duration::from_mins(1), Duration::from_mins(4))
        .start()
        .await;
    let (agent, tunnel) = joined_by_tunnel(coordinator.api, &runtime().await).await;

    drop(tunnel);

    let is_lost = |agent: &AgentView| agent.reason == Some(UnroutableReason::NoTunnel);
    let lost = coordinator
        .api
        .wait_for_agent(agent.id, "lost", is_lost)
        .await;
    assert!(!lost.routable);
    let is_offline = |agent: &AgentView| agent.reason == Some(UnroutableReason::Offline);
    coordinator
        .api
        .wait_for_agent(agent.id, "offline", is_offline)
        .await;
}

#[tokio::test]
async fn newer_tunnel_of_the_same_session_replaces_the_older_one() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let (agent, older) = joined_by_tunnel(coordinator.api, &runtime).await;

    let newer = Bearer::Runtime(runtime.addr());
    let newer = open_tunnel(coordinator.api, &agent, newer).await;

    older.ended().await;
    ask(coordinator.api, 3).await;
    assert!(coordinator.api.agent(agent.id).await.routable);
    drop(newer);
}

#[tokio::test]
async fn nobody_gets_a_tunnel_without_the_secret_and_the_session() {
    let coordinator = TestCoordinator::new().await;
    let agent = behind_nat(&runtime().await);
    let open = |agent| async move {
        let opened = open_tunnel(coordinator.api, &agent, Bearer::Silent).await;
        opened.map(|_| ()).unwrap_err()
    };

    let unknown = open(agent.clone()).await;
    agent.register(coordinator.api).await;
    let mut thief = FakeAgent::new("thief");
    thief.id = agent.id;
    thief.session = agent.session;
    let stolen = open(thief).await;
    let mut other = agent.clone();
    other.session = SessionId::new();
    let other_session = open(other).await;
    let path = agent.path(&format!("/tunnel?session={}", agent.session));
    let plain = coordinator.api.get(&path).await;

    assert_eq!(unknown, StatusCode::NOT_FOUND);
    assert_eq!(stolen, StatusCode::FORBIDDEN);
    assert_eq!(other_session, StatusCode::NOT_FOUND);
    assert_eq!(plain.status, StatusCode::UPGRADE_REQUIRED);
    assert_eq!(plain.header("upgrade"), "ollama-coordinator-tunnel");
}

#[tokio::test]
async fn agent_that_is_forgotten_loses_its_tunnel() {
    let coordinator = TestCoordinator::new().await;
    let (agent, tunnel) = joined_by_tunnel(coordinator.api, &runtime().await).await;

    let forgotten = coordinator.api.delete(&agent.path("")).await;

    assert_eq!(forgotten.status, StatusCode::NO_CONTENT);
    tunnel.ended().await;
}

#[tokio::test]
async fn two_processes_with_tunnels_and_one_id_are_told_apart() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let (first, tunnel) = joined_by_tunnel(coordinator.api, &runtime).await;
    let mut clone = first.clone();
    clone.session = SessionId::new();
    clone.register(coordinator.api).await;
    let bearer = Bearer::Runtime(runtime.addr());
    let clones = open_tunnel(coordinator.api, &clone, bearer).await;
    tunnel.ended().await;

    let again = open_tunnel(coordinator.api, &first, bearer).await;
    assert_eq!(again.map(|_| ()).unwrap_err(), StatusCode::NOT_FOUND);
    assert_eq!(first.beat(coordinator.api).await.status, StatusCode::OK);
    let proof = first.beat(coordinator.api).await;

    assert_eq!(
        proof.status,
        StatusCode::NOT_FOUND,
        "the record is the other's"
    );
    first.register(coordinator.api).await;
    let refused = clone.beat(coordinator.api).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let tunnel = open_tunnel(coordinator.api, &first, bearer).await;
    coordinator.api.wait_until_routable(first.id).await;
    ask(coordinator.api, 3).await;
    drop((tunnel, clones));
}

#[tokio::test]
async fn agents_behind_different_walls_may_have_the_same_address() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;

    let (first, _first) = joined_by_tunnel(coordinator.api, &runtime).await;
    let (second, _second) = joined_by_tunnel(coordinator.api, &runtime).await;

    assert_ne!(first.id, second.id);
    assert!(coordinator.api.agent(first.id).await.routable);
    assert_eq!(coordinator.api.agents().await.len(), 2);
    let shown = coordinator.api.agent(second.id).await;
    assert_eq!(shown.models[0].name, format!("{MODEL}:latest"));
}
