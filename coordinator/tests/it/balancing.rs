//! Which agent gets a request, as seen from outside.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use ollama_coordinator_common::protocol::view::UnroutableReason;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::agent::FakeAgent;
use crate::support::api::{Answer, Api};
use crate::support::chat::{ask, chat, in_memory, joined};
use crate::support::coordinator::TestCoordinator;

/// Starts a runtime that serves so many at once, and an agent that says so.
async fn with_slots(api: Api, slots: u32) -> (ScriptedRuntime, FakeAgent) {
    let script = RuntimeScript {
        slots: NonZeroU32::new(slots).expect("there is one"),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script)
        .await
        .expect("a port is free");
    let mut agent = FakeAgent::in_front_of(&runtime, "gpu");
    agent.report.slots = NonZeroU32::new(slots);
    agent.join(api).await;
    (runtime, agent)
}

/// Begins an answer that does not end; dropping it hangs up.
async fn begun(api: Api) -> Answer {
    let mut answer = api.post("/api/chat", &chat("hi")).await;
    let first = answer.next_frame().await.expect("it begins");
    assert!(first.is_some());
    answer
}

async fn stall(runtime: &ScriptedRuntime) {
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 100 })
        .await;
}

#[tokio::test]
async fn agent_with_the_model_in_memory_comes_first() {
    let coordinator = TestCoordinator::new().await;
    let (cold, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let (warm, mut agent) = joined(coordinator.api, RuntimeScript::default()).await;
    agent.report.loaded_models = vec![in_memory()];
    agent.register(coordinator.api).await;

    ask(coordinator.api, 10).await;

    let counts = [&cold, &warm].map(|runtime| runtime.recent_requests_to("/api/chat"));
    assert_eq!(counts, [0, 10]);
}

#[tokio::test]
async fn agent_that_hangs_with_the_model_in_memory_is_asked_last() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (_cold, other) = joined(api, RuntimeScript::default()).await;
    let (hung, mut agent) = joined(api, RuntimeScript::default()).await;
    agent.report.loaded_models = vec![in_memory()];
    agent.register(api).await;
    hung.set_failure(FailureMode::Stall { after_bytes: 0 })
        .await;
    let mut waiting = JoinSet::new();
    waiting.spawn(async move { api.post("/api/chat", &chat("hi")).await.status });
    let in_flight = async || hung.in_flight();
    wait_for("asked", PATIENCE, in_flight, |count| *count == 1).await;

    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();

    let answer = api.post("/api/chat", &chat("hi")).await;
    let by = answer.header("x-coordinator-agent").to_owned();
    assert_eq!((answer.status, by), (StatusCode::OK, other.id.to_string()));
}

#[tokio::test]
async fn request_over_capacity_goes_elsewhere_and_waits_when_all_is_taken() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (one, _) = with_slots(api, 1).await;
    let (other, _) = with_slots(api, 2).await;
    stall(&one).await;
    stall(&other).await;

    let mut begun_ones = Vec::new();
    for _ in 0..3 {
        begun_ones.push(begun(api).await);
    }
    assert_eq!([one.in_flight(), other.in_flight()], [1, 2]);
    let waiting = chat("waiting");
    let mut waits = Box::pin(api.post("/api/chat", &waiting));
    tokio::select! {
        answer = &mut waits => panic!("every slot is taken: {}", answer.status),
        () = async { assert_eq!(one.in_flight() + other.in_flight(), 3) } => {}
    }
    begun_ones.pop();

    let mut served = waits.await;
    served.next_frame().await.unwrap();
    assert_eq!(served.status, StatusCode::OK);
}

#[tokio::test]
async fn operators_capacity_wins_over_the_runtimes_and_lasts() {
    let mut coordinator = TestCoordinator::new().await;
    let (runtime, agent) = with_slots(coordinator.api, 4).await;
    let (other, _) = with_slots(coordinator.api, 4).await;
    let set = |capacity: u32| json!({ "capacity": capacity });

    let api = coordinator.api;
    assert_eq!(capacity_of(api, &agent).await, (Some(4), None));
    api.patch(&agent.path(""), &set(1)).await;
    coordinator.restart().await;
    assert_eq!(capacity_of(api, &agent).await, (Some(1), Some(1)));
    stall(&runtime).await;
    stall(&other).await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(begun(api).await);
    }
    assert_eq!([runtime.in_flight(), other.in_flight()], [1, 4]);

    api.patch(&agent.path(""), &set(0)).await;
    assert_eq!(capacity_of(api, &agent).await, (Some(4), None));
    let mut refused = api.patch(&agent.path(""), &set(10_001)).await;
    assert_eq!(refused.problem(400).await["errors"][0]["field"], "capacity");
}

/// Returns how much an agent is given at once, and what of that the operator has decided.
async fn capacity_of(api: Api, agent: &FakeAgent) -> (Option<u32>, Option<u32>) {
    let agent = api.agent(agent.id).await;
    (agent.capacity, agent.capacity_override)
}

#[tokio::test]
async fn waiting_request_is_served_by_an_agent_that_joins() {
    let coordinator = TestCoordinator::new().await;
    let (busy, agent) = with_slots(coordinator.api, 1).await;
    stall(&busy).await;
    let _held = begun(coordinator.api).await;
    let question = chat("hi");
    let mut waits = Box::pin(coordinator.api.post("/api/chat", &question));
    tokio::select! {
        answer = &mut waits => panic!("every slot is taken: {}", answer.status),
        _ = coordinator.api.agent(agent.id) => {}
    }

    let (_free, joins) = with_slots(coordinator.api, 1).await;

    let answer = waits.await;
    assert_eq!(answer.header("x-coordinator-agent"), joins.id.to_string());
}

#[tokio::test]
async fn waiting_request_is_told_at_once_when_nobody_is_left_to_serve_it() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, agent) = with_slots(coordinator.api, 1).await;
    stall(&runtime).await;
    let _served = begun(coordinator.api).await;
    let question = chat("hi");
    let mut waits = Box::pin(coordinator.api.post("/api/chat", &question));
    let one = "_queued{model=\"simulated-small\"} 1";
    let queued = async || coordinator.api.get("/metrics").await.text().await;
    tokio::select! {
        answer = &mut waits => panic!("every slot is taken: {}", answer.status),
        _ = wait_for("queued", PATIENCE, queued, |page| page.contains(one)) => {}
    }

    let drained = json!({ "draining": true });
    coordinator.api.patch(&agent.path(""), &drained).await;

    let mut answer = waits.await;
    let text = answer.text().await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("offline or gets no requests"), "{text}");
}

#[tokio::test]
async fn agent_that_fails_is_shown_as_ejected_until_it_works() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (runtime, agent) = joined(api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Reset { after_bytes: 0 })
        .await;

    let answer = api.post("/api/chat", &chat("hi")).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    api.wait_for_agent(agent.id, "ejected", |agent| {
        agent.reason == Some(UnroutableReason::Ejected)
    })
    .await;
    runtime.set_failure(FailureMode::None).await;
    ask(api, 1).await;

    api.wait_for_agent(agent.id, "back", |agent| agent.routable)
        .await;
}
