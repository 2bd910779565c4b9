//! What passes through the coordinator, what does not, and what it does when a way is closed.

use http::{Method, StatusCode};
use ollama_coordinator_common::protocol::runtime::RuntimeKind;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::agent::FakeAgent;
use crate::support::api::request;
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=1\r\n\
    access-control-allow-origin: http://elsewhere\r\nx-kept: yes\r\n\r\n{}";

#[rstest]
#[case::ollama("/api/chat", "/error")]
#[case::openai("/v1/chat/completions", "/error/message")]
#[tokio::test]
async fn request_that_comes_back_is_not_sent_round_again(
    #[case] path: &str,
    #[case] message: &str,
) {
    let coordinator = TestCoordinator::new().await;
    let health = coordinator.api.get("/healthz").await.json().await;
    let own = health["instance_id"].as_str().unwrap();
    let mut ask = request(Method::POST, path, r#"{"model":"a"}"#);
    let hops = format!("00000000-0000-4000-8000-000000000000, {own}");
    let headers = ask.headers_mut();
    headers.insert("x-coordinator-hop", hops.parse().unwrap());

    let mut answer = coordinator.api.send(ask).await;

    assert_eq!(answer.status, StatusCode::LOOP_DETECTED);
    let body: Value = answer.json().await;
    let message = body.pointer(message).unwrap().as_str().unwrap();
    assert!(message.contains("came back"), "{body}");
}

#[tokio::test]
async fn hops_are_added_to_and_cookies_and_rules_for_origins_are_held_back() {
    let coordinator = TestCoordinator::new().await;
    let health = coordinator.api.get("/healthz").await.json().await;
    let (upstream, _agent) = joined(&coordinator, RuntimeKind::Ollama).await;
    let mut ask = request(Method::POST, "/api/chat", r#"{"model":"a"}"#);
    for (name, value) in [
        ("x-coordinator-hop", "earlier"),
        ("connection", "x-coordinator-hop"),
        ("cookie", "session=1"),
        ("authorization", "Bearer x"),
        ("origin", "http://chat.example"),
    ] {
        ask.headers_mut().insert(name, value.parse().unwrap());
    }

    let answer = coordinator.api.send(ask).await;

    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("set-cookie"), "");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("x-kept"), "yes");
    let head = upstream.requests().concat().to_lowercase();
    let own = health["instance_id"].as_str().unwrap();
    for passed in ["earlier", own] {
        let hop = format!("\r\nx-coordinator-hop: {passed}\r\n");
        assert!(head.contains(&hop), "{head}");
    }
    assert!(head.contains("\r\nauthorization: bearer x\r\n"), "{head}");
    assert!(!head.contains("cookie"), "{head}");
}

#[tokio::test]
async fn model_that_only_speaks_the_openai_api_is_said_to() {
    let coordinator = TestCoordinator::new().await;
    let (_upstream, _agent) = joined(&coordinator, RuntimeKind::Openai).await;
    let ask = json!({ "model": "a" });

    let mut ollama = coordinator.api.post("/api/chat", &ask).await;
    let openai = coordinator.api.post("/v1/chat/completions", &ask).await;

    assert_eq!(ollama.status, StatusCode::NOT_FOUND);
    assert_eq!(
        ollama.json().await["error"],
        "the machines that have model 'a' do not speak Ollama's API, use /v1/chat/completions"
    );
    assert_eq!(openai.status, StatusCode::OK);
}

#[tokio::test]
async fn agent_is_found_behind_many_that_cannot_be_reached() {
    let coordinator = TestCoordinator::new().await;
    let mut runtimes = Vec::new();
    for _ in 0..6 {
        let runtime = ScriptedRuntime::start(RuntimeScript::default());
        let runtime = runtime.await.expect("a port is free");
        let agent = FakeAgent::in_front_of(&runtime, "gpu");
        agent.join(coordinator.api).await;
        runtimes.push(runtime);
    }
    for gone in &runtimes[1..] {
        gone.set_failure(FailureMode::Refuse).await;
    }
    let ask = json!({ "model": "simulated-small", "stream": false, "messages": [] });

    for _ in 0..6 {
        let answer = coordinator.api.post("/api/chat", &ask).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
}

/// Starts an agent that has model `a` in front of a runtime of this kind.
async fn joined(coordinator: &TestCoordinator, kind: RuntimeKind) -> (FakeUpstream, FakeAgent) {
    let upstream = FakeUpstream::start(OK).await;
    let mut agent = FakeAgent::new("gpu").with_models(&["a:latest"]);
    agent.report.kind = kind;
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;
    (upstream, agent)
}

#[rstest]
#[case::ollama("/api/chat", "/error")]
#[case::openai("/v1/chat/completions", "/error/message")]
#[case::machine("/api/show", "/error")]
#[tokio::test]
async fn switch_of_protocols_that_nobody_asked_for_is_a_broken_answer(
    #[case] path: &str,
    #[case] message: &str,
) {
    const SWITCH: &str =
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n";
    let coordinator = TestCoordinator::new().await;
    let upstream = FakeUpstream::start(SWITCH).await;
    let mut agent = FakeAgent::new("gpu").with_models(&["a:latest"]);
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;

    let mut answer = coordinator
        .api
        .send(request(Method::POST, path, r#"{"model":"a"}"#))
        .await;

    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let body: Value = answer.json().await;
    assert!(
        body.pointer(message).is_some_and(Value::is_string),
        "{body}"
    );
}

#[tokio::test]
async fn answer_with_many_headers_passes_with_all_of_them() {
    let coordinator = TestCoordinator::new().await;
    let many = (0..200).map(|n| format!("x-header-{n}: {n}\r\n"));
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{}\r\n{{}}",
        many.collect::<String>()
    );
    let upstream = FakeUpstream::start(answer.leak()).await;
    let mut agent = FakeAgent::new("gpu").with_models(&["a:latest"]);
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;

    // The client of the other tests takes no more than a hundred.
    let mut client = TcpStream::connect(coordinator.api.addr()).await.unwrap();
    let ask = "POST /api/chat HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
        content-length: 13\r\n\r\n{\"model\":\"a\"}";
    client.write_all(ask.as_bytes()).await.unwrap();
    let mut passed = String::new();
    client.read_to_string(&mut passed).await.unwrap();

    assert!(passed.starts_with("HTTP/1.1 200 OK\r\n"), "{passed}");
    assert!(passed.contains("x-header-199: 199\r\n"), "{passed}");
}
