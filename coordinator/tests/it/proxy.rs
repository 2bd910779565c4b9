//! A client's request on its way to a model, and what comes back.

use std::num::NonZeroU32;

use http::{Method, StatusCode, header};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript, chat_prompt, simulated_model};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

const MODEL: &str = "simulated-small";

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
async fn requests_are_spread_over_the_agents_that_have_the_model() {
    let coordinator = TestCoordinator::new().await;
    let (one, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let (other, _) = joined(coordinator.api, RuntimeScript::default()).await;

    for _ in 0..10 {
        let answer = coordinator.api.post("/api/chat", &chat("hi")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }

    let counts = [&one, &other].map(|runtime| runtime.recent_requests_to("/api/chat"));
    assert_eq!(counts, [5, 5]);
}

#[tokio::test]
async fn draining_agent_gets_no_request_until_it_is_done() {
    let coordinator = TestCoordinator::new().await;
    let (one, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let (other, _) = joined(coordinator.api, RuntimeScript::default()).await;
    let drain = |draining: bool| json!({ "draining": draining });

    coordinator.api.patch(&agent.path(""), &drain(true)).await;
    ask(coordinator.api, 6).await;
    let while_draining = (
        one.recent_requests_to("/api/chat"),
        other.recent_requests_to("/api/chat"),
    );
    coordinator.api.patch(&agent.path(""), &drain(false)).await;
    ask(coordinator.api, 6).await;

    assert_eq!(while_draining, (0, 6));
    assert_eq!(one.recent_requests_to("/api/chat"), 3);
}

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
    let (_, error) = coordinator
        .api
        .post("/api/chat", &ask)
        .await
        .read_all()
        .await;

    assert_eq!(before_it_began.status, StatusCode::BAD_GATEWAY);
    assert!(error.is_some());
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

/// Starts a runtime and an agent in front of it that gets requests.
async fn joined(api: Api, script: RuntimeScript) -> (ScriptedRuntime, FakeAgent) {
    let script = RuntimeScript {
        answer_tokens: NonZeroU32::new(20),
        ..script
    };
    let runtime = ScriptedRuntime::start(script)
        .await
        .expect("a port is free");
    let agent = FakeAgent::in_front_of(&runtime, "gpu");
    agent.join(api).await;
    (runtime, agent)
}

fn chat(prompt: &str) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": prompt }] })
}

async fn ask(api: Api, times: usize) {
    for _ in 0..times {
        let mut answer = api.post("/api/chat", &chat("hi")).await;
        let text = answer.text().await;
        assert_eq!(answer.status, StatusCode::OK, "{text}");
    }
}

/// Returns what stands at `pointer` in each line of JSON, joined.
fn joined_lines(text: &str, pointer: &str) -> String {
    let lines = text.lines().filter(|line| !line.is_empty());
    let values = lines.map(|line| serde_json::from_str::<Value>(line).expect("it is JSON"));
    values
        .filter_map(|value| Some(value.pointer(pointer)?.as_str()?.to_owned()))
        .collect()
}
