//! Lists that the coordinator answers by itself, whatever the machines do.

use http::{Method, StatusCode};
use ollama_coordinator_common::protocol::runtime::LoadedModel;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript, simulated_model};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::coordinator::TestCoordinator;

/// Joins an agent with a model that is in memory until then.
async fn holding(api: Api, name: &str, until: &str) -> (ScriptedRuntime, FakeAgent) {
    let script = RuntimeScript {
        models: vec![simulated_model("team/a:7b", 1 << 30)],
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script)
        .await
        .expect("a port is free");
    let mut agent = FakeAgent::in_front_of(&runtime, name);
    agent.report.loaded_models = vec![LoadedModel {
        name: "team/a:7b".to_owned(),
        size: Some(9),
        size_vram: Some(7),
        expires_at: Some(until.to_owned()),
        context_length: Some(4096),
    }];
    agent.join(api).await;
    (runtime, agent)
}

#[tokio::test]
async fn models_in_memory_are_listed_once_with_all_that_ollama_tells() {
    let coordinator = TestCoordinator::new().await;
    let _one = holding(coordinator.api, "gpu-1", "2026-01-01T00:00:00Z").await;
    let _two = holding(coordinator.api, "gpu-2", "2026-01-02T00:00:00Z").await;

    let text = coordinator.api.get("/api/ps").await.text().await;

    let list: Value = serde_json::from_str(&text).unwrap();
    let model = simulated_model("team/a:7b", 1 << 30);
    let expected = json!({ "models": [{
        "name": "team/a:7b",
        "model": "team/a:7b",
        "size": 9,
        "digest": model.digest,
        "details": model.details,
        "expires_at": "2026-01-02T00:00:00Z",
        "size_vram": 7,
        "context_length": 4096,
    }]});
    assert_eq!(list, expected);
    assert!(text.starts_with(r#"{"models":[{"name":"#), "{text}");
}

#[tokio::test]
async fn agent_that_left_takes_its_models_out_of_the_lists() {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = holding(coordinator.api, "gpu-1", "2026-01-01T00:00:00Z").await;

    agent.leave(coordinator.api).await;

    for (path, empty) in [
        ("/api/tags", json!({ "models": [] })),
        ("/api/ps", json!({ "models": [] })),
        ("/v1/models", json!({ "object": "list", "data": [] })),
        ("/api/version", json!({ "version": "0.0.0" })),
        (
            "/api/status",
            json!({ "cloud": { "disabled": false, "source": "none" } }),
        ),
    ] {
        assert_eq!(
            coordinator.api.get(path).await.json().await,
            empty,
            "{path}"
        );
    }
}

#[rstest]
#[case("team%2Fa%3A7b")]
#[case("team/a:7b")]
#[case("Team%2fA:7b")]
#[tokio::test]
async fn one_model_is_found_by_its_name_in_a_path(#[case] name: &str) {
    let coordinator = TestCoordinator::new().await;
    let _agent = holding(coordinator.api, "gpu-1", "2026-01-01T00:00:00Z").await;

    let path = format!("/v1/models/{name}");
    let mut ask = request(Method::GET, &path, "");
    let version = "2023-06-01".parse().unwrap();
    ask.headers_mut().insert("anthropic-version", version);
    let model = coordinator.api.send(ask).await.json().await;

    let expected = json!({
        "id": "team/a:7b", "object": "model", "created": 1_767_225_600, "owned_by": "team",
    });
    assert_eq!(model, expected);
}

#[tokio::test]
async fn unknown_model_in_a_path_is_not_found_in_the_shape_of_openai() {
    let coordinator = TestCoordinator::new().await;

    let mut answer = coordinator.api.get("/v1/models/a%20b").await;

    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    let error = json!({
        "message": "model 'a b' not found", "type": "not_found_error", "param": null, "code": null,
    });
    assert_eq!(answer.json().await, json!({ "error": error }));
}

#[tokio::test]
async fn lists_do_not_wait_for_machines_that_do_not_answer() {
    let coordinator = TestCoordinator::new().await;
    let (one, _agent) = holding(coordinator.api, "gpu-1", "2026-01-01T00:00:00Z").await;
    let (two, _agent) = holding(coordinator.api, "gpu-2", "2026-01-01T00:00:00Z").await;
    for runtime in [&one, &two] {
        let stalled = FailureMode::Stall { after_bytes: 0 };
        runtime.set_failure_everywhere(stalled).await;
    }

    for path in [
        "/",
        "/api/version",
        "/api/tags",
        "/api/ps",
        "/v1/models",
        "/api/status",
    ] {
        let answer = coordinator.api.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.header("x-coordinator-agent"), "", "{path}");
    }
}

#[tokio::test]
async fn one_machine_can_be_asked_for_its_own_list() {
    let coordinator = TestCoordinator::new().await;
    let _one = holding(coordinator.api, "gpu-1", "2026-01-01T00:00:00Z").await;
    let (other, agent) = holding(coordinator.api, "gpu-2", "2026-01-01T00:00:00Z").await;
    other.set_models(vec![simulated_model("b:latest", 1)]).await;

    let mut tags = coordinator.api.get("/api/tags?agent=gpu-2").await;
    let both = coordinator.api.get("/api/tags?agent=gpu-1,gpu-2").await;

    assert_eq!(tags.header("x-coordinator-agent"), agent.id.to_string());
    assert_eq!(tags.json().await["models"][0]["name"], "b:latest");
    assert_eq!(both.status, StatusCode::BAD_REQUEST);
}
