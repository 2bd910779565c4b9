//! Registrations that are refused, and how that is said.

use bytes::Bytes;
use http::{Method, header};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::request;
use crate::support::assert_body;
use crate::support::coordinator::TestCoordinator;

#[rstest]
#[case::other_secret(true)]
#[case::no_secret(false)]
#[tokio::test]
async fn stranger_who_knows_an_id_is_refused_and_learns_nothing(#[case] has_secret: bool) {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let before = coordinator.api.agent(agent.id).await;
    let stranger = FakeAgent {
        id: agent.id,
        ..FakeAgent::new("stolen")
    };
    let mut theft = request(
        Method::POST,
        "/api/agents",
        stranger.registration().to_string(),
    );
    if has_secret {
        theft = stranger.signed(theft);
    }

    let problem = coordinator.api.send(theft).await.problem(403).await;

    assert_body!("wrong_secret", problem);
    let after = coordinator.api.agent(agent.id).await;
    assert_eq!(
        (after.machine_name, after.epoch),
        (before.machine_name, before.epoch)
    );
}

#[tokio::test]
async fn endpoint_of_a_live_agent_with_a_secret_cannot_be_taken_without_an_id() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let body = json!({ "machine_name": "stolen", "port": agent.runtime.port() });

    let problem = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .problem(403)
        .await;

    assert_eq!(problem["code"], "wrong_secret");
    assert_eq!(coordinator.api.agents().await.len(), 1);
}

#[rstest]
#[case::no_name(json!({ "port": 9 }), "machine_name")]
#[case::empty_name(json!({ "machine_name": " " }), "machine_name")]
#[case::number_as_name(json!({ "machine_name": 7 }), "machine_name")]
#[case::long_name(json!({ "machine_name": "x".repeat(256) }), "machine_name")]
#[case::control_characters(json!({ "machine_name": "gpu\u{1b}[31m" }), "machine_name")]
#[case::line_break(json!({ "machine_name": "gpu\nfake log line" }), "machine_name")]
#[case::nul(json!({ "machine_name": "gpu\u{0}" }), "machine_name")]
#[case::reversed_text(json!({ "machine_name": "gpu\u{202e}gnp.exe" }), "machine_name")]
#[case::port_zero(json!({ "machine_name": "gpu", "port": 0 }), "port")]
#[case::port_too_large(json!({ "machine_name": "gpu", "port": 70_000 }), "port")]
#[case::port_negative(json!({ "machine_name": "gpu", "port": -1 }), "port")]
#[case::port_as_text(json!({ "machine_name": "gpu", "port": "11434" }), "port")]
#[case::address_no_address(json!({ "machine_name": "gpu", "ip_address": "gpu.lan" }), "ip_address")]
#[case::id_no_uuid(json!({ "machine_name": "gpu", "agent_id": "../../etc/passwd" }), "agent_id")]
#[case::session_no_uuid(json!({ "machine_name": "gpu", "session": "1" }), "session")]
#[case::epoch_negative(json!({ "machine_name": "gpu", "epoch": -1 }), "epoch")]
#[case::version_too_long(json!({ "machine_name": "gpu", "ollama_version": "1".repeat(256) }),
    "ollama_version")]
#[case::model_hidden(json!({ "machine_name": "gpu",
    "runtime": { "models": [{ "name": "a" }, { "name": "b\u{200b}" }] } }), "runtime.models[1].name")]
#[case::model_nameless(json!({ "machine_name": "gpu", "runtime": { "models": [{}] } }),
    "runtime.models[0]")]
#[case::no_slots(json!({ "machine_name": "gpu", "runtime": { "slots": 0 } }), "runtime.slots")]
#[case::gpu_name(json!({ "machine_name": "gpu", "system_info": { "gpus": [{ "name": "\u{7f}" }] } }),
    "system_info.gpus[0].name")]
#[case::cores_too_many(json!({ "machine_name": "gpu", "system_info": { "cpu_cores": 5e9 } }),
    "system_info.cpu_cores")]
#[tokio::test]
async fn invalid_field_is_named(#[case] body: Value, #[case] field: &str) {
    let coordinator = TestCoordinator::new().await;

    let problem = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .problem(400)
        .await;

    assert_eq!(problem["code"], "invalid_request", "{problem}");
    let fields: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| &e["field"])
        .collect();
    assert_eq!(fields, [field], "{problem}");
    assert_eq!(coordinator.api.agents().await, []);
}

#[tokio::test]
async fn all_broken_rules_are_told_at_once() {
    let coordinator = TestCoordinator::new().await;
    let body = json!({ "machine_name": "", "port": 0, "ollama_version": "\u{7}" });

    let problem = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .problem(400)
        .await;

    assert_body!("invalid_request", problem);
}

#[rstest]
#[case::not_json("{", "body")]
#[case::empty("", "body")]
#[case::not_an_object("[]", "body")]
#[case::two_documents(r#"{"machine_name":"a"}{"machine_name":"b"}"#, "body")]
#[case::name_twice(r#"{"machine_name":"a","hostname":"b"}"#, "machine_name")]
#[case::port_twice(r#"{"machine_name":"a","port":1,"ollama_port":2}"#, "port")]
#[case::infinite(r#"{"machine_name":"a","port":1e400}"#, "port")]
#[tokio::test]
async fn malformed_body_is_refused(#[case] body: &'static str, #[case] field: &str) {
    let coordinator = TestCoordinator::new().await;
    let malformed = request(Method::POST, "/api/agents", body);

    let problem = coordinator.api.send(malformed).await.problem(400).await;

    assert_eq!(problem["errors"][0]["field"], field, "{problem}");
}

#[tokio::test]
async fn bottomless_or_undecodable_bodies_are_refused() {
    let coordinator = TestCoordinator::new().await;
    let deep = format!(r#"{{"machine_name":"a","x":{}"#, "[".repeat(100_000));
    let not_utf8 = Bytes::from_static(b"{\"machine_name\":\"\xff\xfe\"}");

    for body in [Bytes::from(deep), not_utf8] {
        let malformed = request(Method::POST, "/api/agents", body);
        let problem = coordinator.api.send(malformed).await.problem(400).await;
        assert_eq!(problem["code"], "invalid_request", "{problem}");
    }
}

#[tokio::test]
async fn body_of_another_type_is_refused() {
    let coordinator = TestCoordinator::new().await;
    let mut form = request(Method::POST, "/api/agents", r#"{"machine_name":"a"}"#);
    form.headers_mut()
        .insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());

    let problem = coordinator.api.send(form).await.problem(415).await;

    assert_body!("unsupported_media_type", problem);
}

#[tokio::test]
async fn body_above_the_limit_is_refused() {
    let coordinator = TestCoordinator::new().await;
    let body = format!(r#"{{"machine_name":"{}"}}"#, "x".repeat(1 << 20));

    let huge = request(Method::POST, "/api/agents", body);
    let problem = coordinator.api.send(huge).await.problem(413).await;

    assert_body!("payload_too_large", problem);
}

#[rstest]
#[case("not-a-uuid")]
#[case("..%2f..%2fagents.json")]
#[case("%00")]
#[case("00000000-0000-0000-0000-00000000000g")]
#[tokio::test]
async fn ids_in_paths_are_uuids(#[case] id: &str) {
    let coordinator = TestCoordinator::new().await;
    let path = format!("/api/agents/{id}");

    for method in [Method::GET, Method::DELETE] {
        let problem = coordinator
            .api
            .send(request(method, &path, ""))
            .await
            .problem(400)
            .await;
        assert_eq!(problem["errors"][0]["field"], "id", "{problem}");
    }
    let beat = request(Method::POST, &format!("{path}/heartbeat"), "{}");
    assert_eq!(coordinator.api.send(beat).await.status, 400);
}

#[rstest]
#[case::metadata("169.254.169.254")]
#[case::link_local("169.254.1.1")]
#[case::link_local_v6("fe80::1")]
#[case::unspecified("0.0.0.0")]
#[case::unspecified_v6("::")]
#[case::multicast("224.0.0.1")]
#[case::broadcast("255.255.255.255")]
#[case::mapped_metadata("::ffff:169.254.169.254")]
#[case::somebody_elses("203.0.113.7")]
#[tokio::test]
async fn address_that_would_open_a_way_in_is_refused(#[case] address: &str) {
    let coordinator = TestCoordinator::new().await;
    let body = json!({ "machine_name": "gpu", "ip_address": address });

    let problem = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .problem(400)
        .await;

    assert_eq!(problem["code"], "address_not_allowed");
    assert_eq!(coordinator.api.agents().await, []);
}

#[tokio::test]
async fn coordinators_own_port_is_no_runtime() {
    let coordinator = TestCoordinator::new().await;
    let port = coordinator.api.addr().port();
    let body = json!({ "machine_name": "gpu", "ip_address": "127.0.0.1", "port": port });

    let mut problem = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .problem(400)
        .await;

    let detail = problem["detail"]
        .as_str()
        .unwrap()
        .replace(&port.to_string(), "[port]");
    problem["detail"] = detail.into();
    assert_body!("address_not_allowed", problem);
}

#[tokio::test]
async fn secret_that_cannot_be_one_is_refused() {
    let coordinator = TestCoordinator::new().await;
    let body = json!({ "machine_name": "gpu" }).to_string();

    for value in ["Bearer short", "Basic dXNlcjpwYXNzd29yZA==", "Bearer", ""] {
        let mut registration = request(Method::POST, "/api/agents", body.clone());
        registration
            .headers_mut()
            .insert(header::AUTHORIZATION, value.parse().unwrap());
        let problem = coordinator.api.send(registration).await.problem(400).await;
        assert_eq!(
            problem["errors"][0]["field"], "Authorization",
            "{value}: {problem}"
        );
    }
}

#[tokio::test]
async fn what_curl_calls_a_form_is_taken_for_json() {
    let coordinator = TestCoordinator::new().await;
    let mut form = request(Method::POST, "/api/agents", r#"{"machine_name":"a"}"#);
    let curls_default = "application/x-www-form-urlencoded".parse().unwrap();
    form.headers_mut()
        .insert(header::CONTENT_TYPE, curls_default);

    let answer = coordinator.api.send(form).await;

    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn agent_that_is_too_old_is_told_which_one_is_needed() {
    let coordinator = TestCoordinator::new().await;
    let registration = |version: &str| {
        let mut body = FakeAgent::new("gpu-1").registration();
        body["agent_version"] = version.into();
        body
    };

    let mut old = coordinator
        .api
        .post("/api/agents", &registration("0.0.9"))
        .await;
    let unnumbered = coordinator
        .api
        .post("/api/agents", &registration("nightly"))
        .await;

    let problem = old.problem(400).await;
    assert_eq!(problem["code"], "agent_too_old");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("(needs 0.1.0 or newer)"), "{detail}");
    assert!(unnumbered.status.is_success(), "{unnumbered:?}");
}
