//! Signs of life for a client that waits for a stream.

use std::time::Duration;

use http::{StatusCode, header};
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::chat::{chat, joined};
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

const LIVELY: &[&str] = &["--keep-alive=100ms", "--first-byte-timeout=1s"];

async fn lively() -> TestCoordinator {
    TestCoordinator::builder().flags(LIVELY).start().await
}

/// A runtime that thinks for long enough.
fn slow_to_begin() -> RuntimeScript {
    RuntimeScript {
        first_token_delay: Duration::from_millis(600),
        ..RuntimeScript::default()
    }
}

#[tokio::test]
async fn waiting_ollama_client_gets_empty_messages_and_then_its_answer() {
    let coordinator = lively().await;
    let (_runtime, _agent) = joined(coordinator.api, slow_to_begin()).await;

    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;
    let text = answer.text().await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/x-ndjson");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    assert_eq!(
        lines[0]["message"],
        json!({ "role": "assistant", "content": "" })
    );
    assert_eq!(
        (&lines[0]["done"], &lines[0]["model"]),
        (&json!(false), &json!("simulated-small"))
    );
    assert_eq!(lines.last().unwrap()["done"], true);
}

#[tokio::test]
async fn waiting_openai_client_gets_comments_and_then_its_answer() {
    let coordinator = lively().await;
    let (_runtime, _agent) = joined(coordinator.api, slow_to_begin()).await;
    let mut ask = chat("hi");
    ask["stream"] = json!(true);

    let mut answer = coordinator.api.post("/v1/chat/completions", &ask).await;
    let text = answer.text().await;

    assert_eq!(answer.header(header::CONTENT_TYPE), "text/event-stream");
    assert!(text.starts_with(": "), "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
}

#[rstest]
#[case::ollama("/api/chat", "{\"error\":\"")]
#[case::openai("/v1/chat/completions", "data: {\"error\":{")]
#[case::anthropic("/v1/messages", "event: error\ndata: {")]
#[tokio::test]
async fn error_after_signs_of_life_is_told_in_the_stream(#[case] path: &str, #[case] error: &str) {
    let coordinator = lively().await;
    let (runtime, _agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let stall = FailureMode::Stall { after_bytes: 0 };
    runtime.set_failure_everywhere(stall).await;
    let mut ask = chat("hi");
    ask["stream"] = json!(true);

    let mut answer = coordinator.api.post(path, &ask).await;
    let text = answer.text().await;

    assert_eq!(answer.status, StatusCode::OK);
    assert!(text.contains(error), "{text}");
    assert!(text.trim_end().ends_with('}'), "{text}");
}

#[tokio::test]
async fn client_that_wants_no_stream_gets_the_status_however_long_it_waits() {
    let coordinator = lively().await;
    let (runtime, _agent) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 0 })
        .await;
    let mut ask = chat("hi");
    ask["stream"] = json!(false);

    let answer = coordinator.api.post("/api/chat", &ask).await;

    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
}

#[rstest]
#[case::ollama("/api/chat", "{\"error\":\"Service Unavailable\"}\n")]
#[case::openai("/v1/responses", "data: {\"error\":{")]
#[case::anthropic("/v1/messages", "event: error\ndata: {\"error\":{")]
#[tokio::test]
async fn error_page_of_a_runtime_is_retold_in_the_protocol(
    #[case] path: &str,
    #[case] expected: &str,
) {
    let coordinator = lively().await;
    let upstream = FakeUpstream::slow(Duration::from_millis(300), "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\ncontent-length: 20\r\nconnection: close\r\n\r\n<h1>\nno\n\nway\n</h1>\n\n").await;
    let mut agent = FakeAgent::new("gpu").with_models(&["simulated-small:latest"]);
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;
    let mut ask = chat("hi");
    ask["stream"] = json!(true);

    let text = coordinator.api.post(path, &ask).await.text().await;

    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("<h1>"), "{text}");
}
