//! When a request is sent to another agent, and when it never is.

use std::num::NonZeroU32;

use http::StatusCode;
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript, simulated_model};
use rstest::rstest;
use serde_json::json;

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::chat::{ask, chat, joined};
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

const HASTY: &[&str] = &["--first-byte-timeout=500ms", "--idle-timeout=500ms"];

async fn hasty() -> TestCoordinator {
    TestCoordinator::builder().flags(HASTY).start().await
}

/// Returns how many chats these runtimes have got in all.
fn chats(runtimes: &[ScriptedRuntime]) -> usize {
    let counts = runtimes.iter().map(|r| r.recent_requests_to("/api/chat"));
    counts.sum()
}

async fn fleet(api: Api, failure: FailureMode, size: usize) -> Vec<ScriptedRuntime> {
    let mut runtimes = Vec::new();
    for _ in 0..size {
        let (runtime, _agent) = joined(api, RuntimeScript::default()).await;
        runtime.set_failure(failure).await;
        runtimes.push(runtime);
    }
    runtimes
}

#[rstest]
#[case::refused(FailureMode::Refuse)]
#[case::reset(FailureMode::Reset { after_bytes: 0 })]
#[case::silent(FailureMode::Stall { after_bytes: 0 })]
#[case::server_error(FailureMode::Status(StatusCode::INTERNAL_SERVER_ERROR))]
#[case::bad_gateway(FailureMode::Status(StatusCode::BAD_GATEWAY))]
#[case::busy(FailureMode::Status(StatusCode::SERVICE_UNAVAILABLE))]
#[tokio::test]
async fn failure_before_the_first_byte_is_mended_by_another_agent(
    #[case] failure: FailureMode,
    #[values("/api/chat", "/v1/chat/completions")] path: &str,
    #[values(true, false)] stream: bool,
) {
    let coordinator = hasty().await;
    let _broken = fleet(coordinator.api, failure, 1).await;
    let _working = fleet(coordinator.api, FailureMode::None, 1).await;
    let mut question = chat("hi");
    question["stream"] = json!(stream);

    for _ in 0..3 {
        let mut answer = coordinator.api.post(path, &question).await;
        let text = answer.text().await;
        assert_eq!(answer.status, StatusCode::OK, "{text}");
    }
}

#[tokio::test]
async fn agent_that_no_longer_has_the_model_is_passed_over() {
    let coordinator = TestCoordinator::new().await;
    let (forgetful, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let _working = fleet(coordinator.api, FailureMode::None, 1).await;
    forgetful.set_models(Vec::new()).await;

    ask(coordinator.api, 4).await;
}

#[tokio::test]
async fn refusal_that_no_agent_does_better_passes_as_it_is() {
    let coordinator = TestCoordinator::new().await;
    let failure = FailureMode::Status(StatusCode::INTERNAL_SERVER_ERROR);
    let runtimes = fleet(coordinator.api, failure, 2).await;

    let mut direct = Api::new(runtimes[0].addr())
        .post("/api/chat", &chat("hi"))
        .await;
    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;

    assert_eq!(answer.status, direct.status);
    assert_eq!(answer.text().await, direct.text().await);
    assert_eq!(
        chats(&runtimes),
        3,
        "one directly, then each through the coordinator"
    );
}

#[tokio::test]
async fn route_that_a_runtime_lacks_does_not_cost_it_the_model() {
    const NO_ROUTE: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 18\r\nconnection: close\r\n\r\n404 page not found";
    let coordinator = TestCoordinator::new().await;
    let upstream = FakeUpstream::start(NO_ROUTE).await;
    let mut agent = FakeAgent::new("gpu").with_models(&["simulated-small:latest"]);
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;

    for path in ["/v1/messages/count_tokens", "/v1/responses", "/api/chat"] {
        let mut answer = coordinator.api.post(path, &chat("hi")).await;
        let text = answer.text().await;
        assert_eq!(text, "404 page not found", "{path}");
    }
}

#[tokio::test]
async fn agent_that_always_fails_is_ejected_even_when_its_failures_pass_on() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let failure = FailureMode::Status(StatusCode::INTERNAL_SERVER_ERROR);
    runtime.set_failure(failure).await;

    for _ in 0..8 {
        let answer = coordinator.api.post("/api/chat", &chat("hi")).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    }

    let ejected = |agent: &AgentView| agent.reason == Some(UnroutableReason::Ejected);
    coordinator
        .api
        .wait_for_agent(agent.id, "ejected", ejected)
        .await;
}

#[tokio::test]
async fn failures_of_a_model_on_one_agent_spend_no_retries_of_others() {
    let coordinator = TestCoordinator::new().await;
    let failure = FailureMode::Status(StatusCode::INTERNAL_SERVER_ERROR);
    let lonely = RuntimeScript {
        models: vec![simulated_model("lonely:latest", 1)],
        ..RuntimeScript::default()
    };
    let (runtime, _agent) = joined(coordinator.api, lonely).await;
    runtime.set_failure(failure).await;
    let _broken = fleet(coordinator.api, failure, 1).await;
    let _working = fleet(coordinator.api, FailureMode::None, 1).await;

    for _ in 0..150 {
        let ask = json!({ "model": "lonely", "prompt": "hi", "stream": false });
        let answer = coordinator.api.post("/api/generate", &ask).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    }

    ask(coordinator.api, 20).await;
}

#[tokio::test]
async fn request_that_agents_have_seen_is_sent_to_at_most_three() {
    let coordinator = TestCoordinator::new().await;
    let reset = FailureMode::Reset { after_bytes: 0 };
    let runtimes = fleet(coordinator.api, reset, 5).await;

    let answer = coordinator.api.post("/api/chat", &chat("hi")).await;

    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(chats(&runtimes), 3);
}

#[tokio::test]
async fn stream_that_has_begun_is_never_begun_elsewhere() {
    let coordinator = TestCoordinator::new().await;
    let reset = FailureMode::Reset { after_bytes: 200 };
    let runtimes = fleet(coordinator.api, reset, 2).await;

    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;
    let (text, _) = answer.read_all().await;

    assert!(text.ends_with("broke off\"}\n"), "{text}");
    assert_eq!(chats(&runtimes), 1);
}

#[tokio::test]
async fn route_that_is_not_known_is_sent_once() {
    let coordinator = TestCoordinator::new().await;
    let failure = FailureMode::Reset { after_bytes: 0 };
    let mut runtimes = Vec::new();
    for _ in 0..2 {
        let (runtime, _agent) = joined(coordinator.api, RuntimeScript::default()).await;
        runtime.set_failure_everywhere(failure).await;
        runtimes.push(runtime);
    }

    let answer = coordinator.api.post("/v1/anything", &chat("hi")).await;

    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let sent = runtimes
        .iter()
        .map(|r| r.recent_requests_to("/v1/anything"));
    assert_eq!(sent.sum::<usize>(), 1);
}

#[rstest]
#[case::ollama("/api/chat", "{\"error\":")]
#[case::openai("/v1/chat/completions", "data: {\"error\":")]
#[tokio::test]
async fn stream_that_stalls_ends_in_an_explicit_error(#[case] path: &str, #[case] error: &str) {
    let coordinator = hasty().await;
    let stall = FailureMode::Stall { after_bytes: 400 };
    let _runtimes = fleet(coordinator.api, stall, 1).await;
    let mut question = chat("hi");
    question["stream"] = json!(true);

    let (text, _) = coordinator.api.post(path, &question).await.read_all().await;

    let last = text.trim_end().lines().last().unwrap();
    assert!(last.starts_with(error), "{text}");
}

#[tokio::test]
async fn slow_agent_is_waited_for() {
    let coordinator = hasty().await;
    let script = RuntimeScript {
        tokens_per_second: NonZeroU32::new(10),
        ..RuntimeScript::default()
    };
    let (_runtime, _agent) = joined(coordinator.api, script).await;
    let ask =
        json!({ "model": "simulated-small", "prompt": "hi", "options": { "num_predict": 8 } });

    let mut answer = coordinator.api.post("/api/generate", &ask).await;

    let text = answer.text().await;
    assert!(text.contains("\"done\":true"), "{text}");
}
