//! A client's request on its way to a model, and what comes back.

use http::{Method, StatusCode, header};
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript, chat_prompt, simulated_model};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::request;
use crate::support::chat::{MODEL, ask, chat, joined};
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

#[tokio::test]
async fn answer_passes_chunk_by_chunk_while_the_runtime_still_works() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 400 })
        .await;

    let mut answer = coordinator.api.post("/api/chat", &chat("hi")).await;
    let mut text = Vec::new();
    while text.len() < 400 {
        text.extend(answer.next_frame().await.unwrap().expect("it goes on"));
    }

    assert_eq!(runtime.in_flight(), 1);
    assert_eq!(coordinator.api.agent(agent.id).await.in_flight, 1);
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/x-ndjson");
    assert_eq!(answer.header("x-coordinator-agent"), agent.id.to_string());
    let first = text.split(|byte| *byte == b'\n').next().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(first).unwrap()["done"],
        false
    );
}

#[tokio::test]
async fn restarted_coordinator_serves_from_the_agents_it_remembers() {
    let mut coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;

    coordinator.restart().await;

    let answer = coordinator.api.post("/api/chat", &chat("hi")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("x-coordinator-agent"), agent.id.to_string());
}

#[tokio::test]
async fn whole_answer_arrives_in_every_protocol() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let expected = runtime
        .script()
        .answer(MODEL, &chat_prompt([("user", "hi")]), None);
    let generate = json!({ "model": MODEL, "prompt": "hi" });

    let streamed = coordinator
        .api
        .post("/api/chat", &chat("hi"))
        .await
        .text()
        .await;
    let generated = coordinator
        .api
        .post("/api/generate", &generate)
        .await
        .text()
        .await;
    let mut whole = chat("hi");
    whole["stream"] = json!(false);
    let whole_path = "/v1/chat/completions";
    let completion = coordinator.api.post(whole_path, &whole).await.json().await;
    whole["stream"] = json!(true);
    let events = coordinator.api.post(whole_path, &whole).await.text().await;

    assert_eq!(joined_lines(&streamed, "/message/content"), expected);
    assert_eq!(
        joined_lines(&generated, "/response"),
        runtime.script().answer(MODEL, "hi", None)
    );
    assert_eq!(completion["choices"][0]["message"]["content"], expected);
    assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
    let events = events.replace("data: [DONE]", "").replace("data: ", "");
    assert_eq!(joined_lines(&events, "/choices/0/delta/content"), expected);
}

#[tokio::test]
async fn bytes_pass_untouched_in_both_directions() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\
        content-length: 40\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
        x-kept: yes\r\n\r\n{ \"odd\" :1.0e0 ,\"\\u0061\":null}\n\r\n {}\n \t\n";
    let coordinator = TestCoordinator::new().await;
    let upstream = FakeUpstream::start(ANSWER).await;
    let mut agent = FakeAgent::new("gpu-1").with_models(&["simulated-small:latest"]);
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;
    let body = "{\"unknown\" : [1e2, {\"model\":\"decoy\"}],\n \"model\":\"simulated-small\" }";
    let mut ask = request(Method::POST, "/api/chat?trace=a%20b", body);
    for (name, value) in [
        ("connection", "x-secret-hop"),
        ("x-secret-hop", "1"),
        ("te", "trailers"),
        ("proxy-authorization", "Basic x"),
        ("x-kept", "yes"),
    ] {
        ask.headers_mut().insert(name, value.parse().unwrap());
    }

    let mut answer = coordinator.api.send(ask).await;

    assert_eq!(
        answer.text().await,
        ANSWER.split_once("\r\n\r\n").unwrap().1
    );
    assert_eq!(answer.header("x-kept"), "yes");
    assert_eq!(
        (answer.header("x-hop"), answer.header("keep-alive")),
        ("", "")
    );
    let arrived = upstream.requests().concat();
    let (head, arrived_body) = arrived.split_once("\r\n\r\n").unwrap();
    assert_eq!(arrived_body, body);
    let head = head.to_lowercase();
    assert!(
        head.starts_with("post /api/chat?trace=a%20b http/1.1\r\n"),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nhost: {}", upstream.addr)),
        "{head}"
    );
    assert!(head.contains("\r\nx-kept: yes"), "{head}");
    for gone in ["x-secret-hop", "\r\nte:", "proxy-authorization"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[tokio::test]
async fn lists_show_the_models_of_all_agents_once() {
    let coordinator = TestCoordinator::new().await;
    let script = |names: &[&str]| RuntimeScript {
        version: "0.12.3".to_owned(),
        models: names
            .iter()
            .map(|name| simulated_model(name, 1 << 30))
            .collect(),
        ..RuntimeScript::default()
    };
    let (_one, _) = joined(coordinator.api, script(&["a:latest", "b:7b"])).await;
    let (_other, _) = joined(coordinator.api, script(&["b:7b", "c:latest"])).await;

    let tags = coordinator.api.get("/api/tags").await.json().await;
    let models = coordinator.api.get("/v1/models").await.json().await;
    let version = coordinator.api.get("/api/version").await.json().await;

    let names = |list: &Value, key: &str| -> Vec<String> {
        let list = list.as_array().unwrap().iter();
        list.map(|model| model[key].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        names(&tags["models"], "name"),
        ["a:latest", "b:7b", "c:latest"]
    );
    assert_eq!(
        names(&tags["models"], "model"),
        ["a:latest", "b:7b", "c:latest"]
    );
    assert_eq!(tags["models"][0]["size"], 1 << 30);
    assert_eq!(
        names(&models["data"], "id"),
        ["a:latest", "b:7b", "c:latest"]
    );
    assert_eq!(version, json!({ "version": "0.12.3" }));
}

#[tokio::test]
async fn draining_agent_gets_no_request_until_it_is_done() {
    let coordinator = TestCoordinator::new().await;
    let (one, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let (other, other_agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let drain = |draining: bool| json!({ "draining": draining });

    coordinator.api.patch(&agent.path(""), &drain(true)).await;
    ask(coordinator.api, 6).await;
    let while_draining = (
        one.recent_requests_to("/api/chat"),
        other.recent_requests_to("/api/chat"),
    );
    coordinator.api.patch(&agent.path(""), &drain(false)).await;
    coordinator
        .api
        .patch(&other_agent.path(""), &drain(true))
        .await;
    ask(coordinator.api, 6).await;

    assert_eq!(while_draining, (0, 6));
    assert_eq!(one.recent_requests_to("/api/chat"), 6);
}

#[rstest]
#[case("a", &["a:latest"], true)]
#[case("a:latest", &["a:latest"], true)]
#[case("a", &["a:7b"], false)]
#[case("a:7b", &["a:latest"], false)]
#[case("hf.co/x/a", &["hf.co/x/a:latest"], true)]
#[tokio::test]
async fn name_without_a_tag_means_latest(
    #[case] asked: &str,
    #[case] has: &[&str],
    #[case] is_found: bool,
) {
    let coordinator = TestCoordinator::new().await;
    let models = has.iter().map(|name| simulated_model(name, 1)).collect();
    let script = RuntimeScript {
        models,
        ..RuntimeScript::default()
    };
    let (_runtime, _) = joined(coordinator.api, script).await;

    let ask = json!({ "model": asked, "messages": [], "stream": false });
    let answer = coordinator.api.post("/api/chat", &ask).await;

    assert_eq!(
        answer.status == StatusCode::OK,
        is_found,
        "{}",
        answer.status
    );
}

/// Returns what stands at `pointer` in each line of JSON, joined.
fn joined_lines(text: &str, pointer: &str) -> String {
    let lines = text.lines().filter(|line| !line.is_empty());
    let values = lines.map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    values
        .filter_map(|value| Some(value.pointer(pointer)?.as_str()?.to_owned()))
        .collect()
}
