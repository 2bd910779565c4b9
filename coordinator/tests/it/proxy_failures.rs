//! What a client is told when a request cannot be answered, or not to its end.

use http::{Method, StatusCode, header};
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::api::{Api, request};
use crate::support::chat::{ask, chat, joined};
use crate::support::coordinator::TestCoordinator;

#[tokio::test]
async fn client_that_leaves_cancels_the_work() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 100 })
        .await;
    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;
    answer.next_frame().await.unwrap();

    drop(answer);

    wait_for(
        "cancelled",
        PATIENCE,
        async || runtime.cancelled(),
        |count| *count == 1,
    )
    .await;
    coordinator
        .api
        .wait_for_agent(agent.id, "idle", |agent| agent.in_flight == 0)
        .await;
}

#[tokio::test]
async fn client_that_leaves_before_the_answer_begins_cancels_the_work() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 0 })
        .await;
    let question = chat("hi");
    let mut asking = Box::pin(coordinator.api.post("/api/chat", &question));
    let has_arrived = async || runtime.in_flight();
    tokio::select! {
        answer = &mut asking => assert!(answer.status.is_server_error(), "it must not answer"),
        _ = wait_for("arrived", PATIENCE, has_arrived, |count| *count == 1) => {}
    }

    drop(asking);

    wait_for(
        "cancelled",
        PATIENCE,
        async || runtime.cancelled(),
        |count| *count == 1,
    )
    .await;
    coordinator
        .api
        .wait_for_agent(agent.id, "idle", |agent| agent.in_flight == 0)
        .await;
}

#[tokio::test]
async fn agent_that_cannot_be_reached_is_passed_over() {
    let coordinator = TestCoordinator::new().await;
    let (gone, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let (alive, _) = joined(coordinator.api, RuntimeScript::default()).await;
    gone.set_failure(FailureMode::Refuse).await;

    ask(coordinator.api, 6).await;

    assert_eq!(alive.recent_requests_to("/api/chat"), 6);
}

#[rstest]
#[case::ollama("/api/chat", json!({ "error": "model 'nobody-has-it' not found" }))]
#[case::openai("/v1/chat/completions", json!({ "error": {
    "message": "model 'nobody-has-it' not found", "type": "not_found_error",
    "param": null, "code": null,
} }))]
#[tokio::test]
async fn model_that_nobody_has_is_not_found(#[case] path: &str, #[case] expected: Value) {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let ask = json!({ "model": "nobody-has-it", "messages": [] });

    let mut answer = coordinator.api.post(path, &ask).await;

    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json().await, expected);
}

#[rstest]
#[case::ollama("/api/chat", "/error")]
#[case::openai("/v1/chat/completions", "/error/message")]
#[tokio::test]
async fn model_of_offline_agents_is_unavailable_for_now(#[case] path: &str, #[case] message: &str) {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    agent.leave(coordinator.api).await;

    let mut answer = coordinator.api.post(path, &chat("hi")).await;

    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header(header::RETRY_AFTER), "2");
    let body = answer.json().await;
    assert!(
        body.pointer(message)
            .unwrap()
            .as_str()
            .unwrap()
            .contains("offline"),
        "{body}"
    );
}

#[rstest]
#[case::no_body("", "missing request body")]
#[case::no_model("{}", "model is required")]
#[case::no_json("model=a", "invalid request body: expected value at line 1 column 1")]
#[tokio::test]
async fn question_without_a_model_is_refused(#[case] body: &'static str, #[case] error: &str) {
    let coordinator = TestCoordinator::new().await;

    let mut answer = coordinator
        .api
        .send(request(Method::POST, "/api/generate", body))
        .await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.json().await, json!({ "error": error }));
}

#[tokio::test]
async fn runtimes_own_refusal_passes_as_it_is() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, _) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Status(StatusCode::IM_A_TEAPOT))
        .await;

    let mut direct = Api::new(runtime.addr())
        .post("/api/chat", &chat("hi"))
        .await;
    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;

    assert_eq!(answer.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(answer.text().await, direct.text().await);
}

#[tokio::test]
async fn ollama_stream_that_breaks_ends_in_an_error_line() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Reset { after_bytes: 300 })
        .await;

    let (text, _) = coordinator
        .api
        .post("/api/chat", &chat("hi"))
        .await
        .read_all()
        .await;

    let last: Value = serde_json::from_str(text.lines().last().unwrap()).expect(&text);
    assert_eq!(
        last,
        json!({ "error": "the agent that was answering broke off" }),
        "{text}"
    );
    coordinator
        .api
        .wait_for_agent(agent.id, "idle", |agent| agent.in_flight == 0)
        .await;
}

#[tokio::test]
async fn event_stream_that_breaks_ends_in_an_error_event_and_never_in_done() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, _) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Reset { after_bytes: 300 })
        .await;
    let mut ask = chat("hi");
    ask["stream"] = json!(true);

    let path = "/v1/chat/completions";
    let (text, error) = coordinator.api.post(path, &ask).await.read_all().await;

    assert!(error.is_some(), "the stream must not look complete");
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    let last: Value = serde_json::from_str(last.trim_start_matches("data: ")).expect(&text);
    assert_eq!(
        last["error"]["message"],
        "the agent that was answering broke off"
    );
    assert!(!text.contains("[DONE]"), "{text}");
}

#[tokio::test]
async fn answer_in_one_piece_that_breaks_is_not_passed_off_as_whole() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let mut ask = chat("hi");
    ask["stream"] = json!(false);

    runtime
        .set_failure(FailureMode::Reset { after_bytes: 0 })
        .await;
    let before_it_began = coordinator.api.post("/api/chat", &ask).await;
    runtime
        .set_failure(FailureMode::Reset { after_bytes: 30 })
        .await;
    let sent = coordinator
        .api
        .try_send(request(Method::POST, "/api/chat", ask.to_string()))
        .await;

    assert_eq!(before_it_began.status, StatusCode::BAD_GATEWAY);
    // A reset may overtake what was sent before it: then no answer has begun.
    let is_broken = match sent {
        Err(_no_head) => true,
        Ok(answer) if answer.status == StatusCode::BAD_GATEWAY => true,
        Ok(mut answer) => answer.read_all().await.1.is_some(),
    };
    assert!(is_broken);
}
