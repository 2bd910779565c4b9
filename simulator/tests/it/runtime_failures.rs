//! How a scripted runtime fails when it is told to.

use std::io::ErrorKind;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{get, io_kind, post, send};

const CHAT: &str = "/api/chat";

fn hello() -> Value {
    json!({ "model": "simulated-small", "messages": [{ "role": "user", "content": "hi" }] })
}

async fn failing(failure: FailureMode) -> ScriptedRuntime {
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .expect("a loopback port is free");
    runtime.set_failure(failure).await;
    runtime
}

#[rstest]
#[case(1)]
#[case(333)]
#[tokio::test]
async fn reset_comes_after_exactly_as_many_bytes_as_told(#[case] after_bytes: u64) {
    let runtime = failing(FailureMode::Reset { after_bytes }).await;

    let mut answer = post(runtime.addr(), CHAT, hello()).await;
    let (bytes, error) = answer.read_all().await;

    assert_eq!(bytes.len() as u64, after_bytes);
    assert_eq!(io_kind(&error.unwrap()), Some(ErrorKind::ConnectionReset));
    wait_for(
        "the end",
        PATIENCE,
        async || runtime.in_flight(),
        |n| *n == 0,
    )
    .await;
    assert_eq!(runtime.cancelled(), 0);
}

#[tokio::test]
async fn reset_after_no_bytes_comes_before_the_head() {
    let runtime = failing(FailureMode::Reset { after_bytes: 0 }).await;

    let failed = send(runtime.addr(), Method::POST, CHAT, &hello().to_string()).await;

    let error = failed.err().unwrap();
    assert_eq!(
        io_kind(&error),
        Some(ErrorKind::ConnectionReset),
        "{error:?}"
    );
}

#[tokio::test]
async fn stall_leaves_the_client_with_exactly_as_many_bytes_as_told() {
    let runtime = failing(FailureMode::Stall { after_bytes: 200 }).await;

    let mut answer = post(runtime.addr(), CHAT, hello()).await;
    let mut seen = 0;
    while seen < 200 {
        seen += answer.next_frame().await.unwrap().unwrap().len();
    }
    assert_eq!((seen, runtime.in_flight()), (200, 1));
    drop(answer);

    wait_for(
        "the abort",
        PATIENCE,
        async || runtime.cancelled(),
        |n| *n == 1,
    )
    .await;
}

#[tokio::test]
async fn stall_before_the_head_still_notices_that_the_client_left() {
    let runtime = failing(FailureMode::Stall { after_bytes: 0 }).await;
    {
        let body = hello().to_string();
        let waiting = send(runtime.addr(), Method::POST, CHAT, &body);
        let arrived = wait_for(
            "arrival",
            PATIENCE,
            async || runtime.in_flight(),
            |n| *n == 1,
        );
        tokio::select! {
            _ = waiting => panic!("a stalled runtime answered"),
            _ = arrived => {}
        }
    }

    wait_for(
        "the abort",
        PATIENCE,
        async || runtime.cancelled(),
        |n| *n == 1,
    )
    .await;
}

#[tokio::test]
async fn refused_port_comes_back_with_the_same_number() {
    let runtime = ScriptedRuntime::start(RuntimeScript {
        tokens_per_second: NonZeroU32::new(1),
        answer_tokens: NonZeroU32::new(1_000),
        ..RuntimeScript::default()
    })
    .await
    .unwrap();
    let mut serving = post(runtime.addr(), CHAT, hello()).await;

    runtime.set_failure(FailureMode::Refuse).await;

    let (_, broken) = serving.read_all().await;
    assert!(broken.is_some());
    let refused = send(runtime.addr(), Method::GET, "/api/version", "").await;
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(runtime.cancelled(), 0);

    runtime.set_failure(FailureMode::None).await;

    let version = get(runtime.addr(), "/api/version").await.json().await;
    assert_eq!(version, json!({ "version": "0.0.0-simulated" }));
}

#[tokio::test]
async fn status_hits_inference_and_leaves_probes_alone_unless_told_otherwise() {
    let failure = FailureMode::Status(StatusCode::BAD_GATEWAY);
    let runtime = failing(failure).await;

    let mut answer = post(runtime.addr(), CHAT, hello()).await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json().await, json!({ "error": "simulated failure" }));
    assert_eq!(
        get(runtime.addr(), "/api/tags").await.status,
        StatusCode::OK
    );

    runtime.set_failure_everywhere(failure).await;
    assert_eq!(
        get(runtime.addr(), "/api/tags").await.status,
        StatusCode::BAD_GATEWAY
    );
}

#[tokio::test]
async fn native_stream_breaks_off_with_an_error_line() {
    let runtime = failing(FailureMode::ErrorLine { after_tokens: 2 }).await;

    let mut answer = post(runtime.addr(), CHAT, hello()).await;

    assert_eq!(answer.status, StatusCode::OK);
    let lines = answer.lines().await;
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2], json!({ "error": "simulated failure" }));
    assert_eq!(runtime.cancelled(), 0);
}

#[tokio::test]
async fn openai_stream_breaks_off_without_done() {
    let runtime = failing(FailureMode::ErrorLine { after_tokens: 2 }).await;
    let mut body = hello();
    body["stream"] = json!(true);

    let text = post(runtime.addr(), "/v1/chat/completions", body)
        .await
        .text()
        .await;

    assert_eq!(text.matches("data: ").count(), 2);
    assert!(!text.contains("[DONE]"), "{text}");
}

#[rstest]
#[case(0, true)]
#[case(2, false)]
#[tokio::test]
async fn error_before_the_first_byte_has_its_real_status(
    #[case] after_tokens: u32,
    #[case] stream: bool,
) {
    let runtime = failing(FailureMode::ErrorLine { after_tokens }).await;
    let mut body = hello();
    body["stream"] = json!(stream);

    let answer = post(runtime.addr(), CHAT, body).await;

    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn slow_runtime_takes_many_times_longer() {
    let runtime = ScriptedRuntime::start(RuntimeScript {
        first_token_delay: Duration::from_millis(10),
        answer_tokens: NonZeroU32::new(1),
        ..RuntimeScript::default()
    })
    .await
    .unwrap();
    let factor = NonZeroU32::new(8).unwrap();
    runtime.set_failure(FailureMode::Slow { factor }).await;
    let started = Instant::now();

    post(runtime.addr(), CHAT, hello()).await.text().await;

    assert!(started.elapsed() >= Duration::from_millis(80));
}
