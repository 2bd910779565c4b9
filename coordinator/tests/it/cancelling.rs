//! A request that an operator cancels: what its client is told, and that the work ends.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_coordinator_common::protocol::request::{RequestOutcome, RequestState, RequestView};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::{Answer, Api, request};
use crate::support::chat::{ask, chat, joined};
use crate::support::coordinator::TestCoordinator;

const TOLD: &str = "the request was cancelled by an operator";

/// Asks for a stream under the id `mine`.
fn asking(path: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let mut body = chat("hi");
    body["stream"] = json!(true);
    body["max_tokens"] = json!(100);
    let mut ask = request(Method::POST, path, body.to_string());
    let id = http::HeaderValue::from_static("mine");
    ask.headers_mut().insert("x-request-id", id);
    ask
}

async fn cancel(api: Api) -> Answer {
    api.post("/api/requests/mine/cancel", &Value::Null).await
}

/// Waits until the request is as `expected`.
async fn seen(api: Api, expected: impl Fn(&RequestView) -> bool) -> RequestView {
    let look = async || {
        let mut all = api.get("/api/requests").await;
        let all: Vec<RequestView> = all.parsed().await;
        all.into_iter().find(|request| request.id == "mine")
    };
    let is_so = |seen: &Option<RequestView>| seen.as_ref().is_some_and(&expected);
    let seen = wait_for("the request is so", PATIENCE, look, is_so).await;
    seen.expect("it was found")
}

/// Waits until neither the machine nor the coordinator has anything to do.
async fn is_idle(api: Api, runtime: &ScriptedRuntime, agent: &FakeAgent) {
    let cancelled = async || runtime.cancelled();
    wait_for("cancelled", PATIENCE, cancelled, |count| *count == 1).await;
    api.wait_for_agent(agent.id, "idle", |agent| agent.in_flight == 0)
        .await;
}

#[rstest]
#[case::ollama("/api/chat", "{\"error\":\"", "\"}\n")]
#[case::openai("/v1/chat/completions", "data: {\"error\":{", "}}\n\n")]
#[case::anthropic("/v1/messages", "event: error\ndata: {", "}\n\n")]
#[tokio::test]
async fn stream_that_is_cancelled_ends_in_the_protocols_error(
    #[case] path: &str,
    #[case] begins: &str,
    #[case] ends: &str,
) {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (runtime, agent) = joined(api, RuntimeScript::default()).await;
    let stall = FailureMode::Stall { after_bytes: 300 };
    runtime.set_failure(stall).await;
    let mut answer = api.send(asking(path)).await;
    answer.next_frame().await.unwrap();

    let accepted = cancel(api).await;

    let (text, _end) = answer.read_all().await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED);
    let (_, error) = text.rsplit_once(begins).expect(&text);
    assert!(error.contains(TOLD) && error.ends_with(ends), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
    is_idle(api, &runtime, &agent).await;
    let seen = seen(api, |seen| seen.state == RequestState::Ended).await;
    assert_eq!(seen.outcome, Some(RequestOutcome::Cancelled));
    assert_eq!(seen.message.as_deref(), Some("cancelled by operator"));
    assert_eq!(seen.attempts[0].outcome.as_deref(), Some("cancelled"));
    assert_eq!(seen.status, Some(200));
}

#[rstest]
#[case::ollama("/api/chat", "/error")]
#[case::openai("/v1/chat/completions", "/error/message")]
#[case::anthropic("/v1/messages", "/error/message")]
#[tokio::test]
async fn request_that_is_cancelled_before_its_answer_is_refused_for_good(
    #[case] path: &str,
    #[case] message: &str,
) {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (runtime, agent) = joined(api, RuntimeScript::default()).await;
    let stall = FailureMode::Stall { after_bytes: 0 };
    runtime.set_failure(stall).await;

    let (mut answer, ()) = tokio::join!(api.send(asking(path)), async {
        seen(api, |seen| seen.state == RequestState::Attempting).await;
        assert_eq!(cancel(api).await.status, StatusCode::ACCEPTED);
    });

    assert_eq!(answer.status.as_u16(), 499);
    assert_eq!(answer.header("x-coordinator-request"), "mine");
    assert_eq!(answer.header("retry-after"), "");
    let body = answer.json().await;
    assert_eq!(body.pointer(message), Some(&json!(TOLD)), "{body}");
    is_idle(api, &runtime, &agent).await;
    let seen = seen(api, |seen| seen.state == RequestState::Ended).await;
    assert_eq!(seen.outcome, Some(RequestOutcome::Cancelled));
    assert_eq!((seen.status, seen.agent_id), (Some(499), None));
}

#[tokio::test]
async fn request_that_is_cancelled_leaves_the_queue_and_nobody_else_does() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let runtime = ScriptedRuntime::start(RuntimeScript::default()).await;
    let runtime = runtime.expect("a port is free");
    let mut agent = FakeAgent::in_front_of(&runtime, "gpu");
    agent.report.slots = NonZeroU32::new(1);
    agent.join(api).await;
    let stall = FailureMode::Stall { after_bytes: 100 };
    runtime.set_failure(stall).await;
    let mut first = api.post("/api/chat", &chat("hi")).await;
    first.next_frame().await.unwrap();

    let (answer, ()) = tokio::join!(api.send(asking("/api/chat")), async {
        seen(api, |seen| seen.state == RequestState::Queued).await;
        cancel(api).await;
    });

    assert_eq!(answer.status.as_u16(), 499);
    let seen = seen(api, |seen| seen.state == RequestState::Ended).await;
    assert!(seen.attempts.is_empty(), "{seen:?}");
    assert_eq!((runtime.in_flight(), runtime.cancelled()), (1, 0));
    drop(first);
    runtime.set_failure(FailureMode::None).await;
    ask(api, 1).await;
}

#[tokio::test]
async fn client_that_has_got_signs_of_life_is_told_in_its_stream() {
    let coordinator = TestCoordinator::builder()
        .flags(&["--keep-alive=100ms"])
        .start()
        .await;
    let api = coordinator.api;
    let (runtime, agent) = joined(api, RuntimeScript::default()).await;
    let stall = FailureMode::Stall { after_bytes: 0 };
    runtime.set_failure(stall).await;
    let mut answer = api.send(asking("/api/chat")).await;
    answer.next_frame().await.unwrap();

    cancel(api).await;

    let text = answer.text().await;
    let last = text.lines().last().expect(&text);
    let last: Value = serde_json::from_str(last).expect(&text);
    assert_eq!(last, json!({ "error": TOLD }));
    is_idle(api, &runtime, &agent).await;
}

#[tokio::test]
async fn what_machines_are_asked_to_do_can_be_cancelled() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let script = RuntimeScript {
        transfer_time: Duration::from_mins(10),
        ..RuntimeScript::default()
    };
    let (_one, one) = joined(api, script.clone()).await;
    let (_other, other) = joined(api, script).await;

    for named in [one.id.to_string(), "all".to_owned()] {
        let path = format!("/api/pull?agent={named}");
        let mut pull = request(Method::POST, &path, r#"{"model":"b"}"#);
        let id = http::HeaderValue::from_static("mine");
        pull.headers_mut().insert("x-request-id", id);
        let mut answer = api.send(pull).await;
        answer.next_frame().await.unwrap();
        assert_eq!(cancel(api).await.status, StatusCode::ACCEPTED);

        let (text, _end) = answer.read_all().await;
        let last = text.lines().last().expect(&text);
        let last: Value = serde_json::from_str(last).expect(&text);
        assert_eq!(last, json!({ "error": TOLD }), "{text}");
        seen(api, |seen| seen.outcome == Some(RequestOutcome::Cancelled)).await;
    }
    assert!(api.agent(other.id).await.routable);
}

#[tokio::test]
async fn only_a_request_that_runs_can_be_cancelled() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (_runtime, _agent) = joined(api, RuntimeScript::default()).await;

    let unknown = cancel(api).await.problem(404).await;
    api.send(asking("/api/chat")).await.text().await;
    seen(api, |seen| seen.state == RequestState::Ended).await;
    let ended = cancel(api).await.problem(409).await;

    assert_eq!(unknown["code"], "unknown_request");
    assert_eq!(ended["code"], "request_ended");
    let seen = seen(api, |_| true).await;
    assert_eq!(seen.outcome, Some(RequestOutcome::Success));
}

#[tokio::test]
async fn machine_is_not_blamed_for_requests_that_were_cancelled() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let (runtime, agent) = joined(api, RuntimeScript::default()).await;
    let stall = FailureMode::Stall { after_bytes: 100 };
    runtime.set_failure(stall).await;

    for count in 1..=8 {
        let mut answer = api.send(asking("/api/chat")).await;
        answer.next_frame().await.unwrap();
        cancel(api).await;
        answer.read_all().await;
        let cancelled = async || runtime.cancelled();
        wait_for("cancelled", PATIENCE, cancelled, |seen| *seen == count).await;
    }

    runtime.set_failure(FailureMode::None).await;
    assert!(api.agent(agent.id).await.routable);
    ask(api, 1).await;
}
