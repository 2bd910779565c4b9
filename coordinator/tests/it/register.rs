//! Joining the registry: what is accepted, what is refused, and how it is said.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, header};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::coordinator::TestCoordinator;

/// Hides what differs from run to run.
macro_rules! assert_body {
    ($name:expr, $body:expr) => {
        insta::assert_json_snapshot!($name, $body, {
            ".id" => "[id]",
            ".request_id" => "[request id]",
            ".coordinator.instance_id" => "[instance id]",
            ".registered_at" => "[time]",
            ".last_seen" => "[time]",
        })
    };
}

#[rstest]
#[case::collection("/api/agents", json!({ "machine_name": "gpu-1", "ip_address": "127.0.0.1",
    "port": 9, "ollama_version": "0.12.0" }))]
#[case::seed_route("/api/agents/register", json!({ "hostname": "gpu-1", "ip_address": "127.0.0.1",
    "ollama_port": 9, "ollama_version": "0.12.0" }))]
#[tokio::test]
async fn plain_registration_creates_once_and_is_known_again(
    #[case] path: &str,
    #[case] body: Value,
) {
    let coordinator = TestCoordinator::new().await;

    let mut created = coordinator.api.post(path, &body).await;
    let mut again = coordinator.api.post(path, &body).await;

    assert_eq!((created.status.as_u16(), again.status.as_u16()), (201, 200));
    let (created, again) = (created.json().await, again.json().await);
    assert_eq!(created, again);
    wait_until_unreachable(coordinator.api, created["id"].as_str().unwrap()).await;
    assert_body!("registered", created);
    let shown = format!("/api/agents/{}", created["id"].as_str().unwrap());
    assert_body!(
        "agent_registered_by_hand",
        coordinator.api.get(&shown).await.json().await
    );
}

#[tokio::test]
async fn machine_name_alone_is_enough() {
    let coordinator = TestCoordinator::new().await;
    let body = json!({ "machine_name": "gpu-1" });

    let registered = coordinator
        .api
        .post("/api/agents", &body)
        .await
        .json()
        .await;

    let agent = coordinator
        .api
        .agent(registered["id"].as_str().unwrap())
        .await;
    assert_eq!(agent.ip_address.to_string(), "127.0.0.1");
    assert_eq!(agent.port, 11434);
}

#[tokio::test]
async fn everything_an_agent_says_is_shown() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1").with_models(&["llama3.2:latest"]);
    let mut body = agent.registration();
    body["agent_version"] = json!("0.1.0");
    body["system_info"] = json!({ "os": "Debian GNU/Linux 12", "arch": "x86_64", "cpu": "EPYC",
        "cpu_cores": 8, "memory_bytes": 64_u64 << 30,
        "gpus": [{ "name": "RTX 4090", "memory_bytes": 24_u64 << 30, "driver": "550.54" }] });
    body["runtime"]["loaded_models"] = json!([{ "name": "llama3.2:latest", "size": 7 }]);
    body["runtime"]["slots"] = json!(4);
    body["a_field_of_tomorrow"] = json!({ "is": "ignored" });
    body["system_info"]["another"] = json!([1]);

    let created = agent.send(coordinator.api, "/api/agents", &body).await;

    assert_eq!(created.status, 201);
    wait_until_unreachable(coordinator.api, agent.id).await;
    assert_body!(
        "agent_in_full",
        coordinator.api.get(&agent.path("")).await.json().await
    );
}

#[tokio::test]
async fn same_agent_keeps_its_id_its_record_and_its_epoch() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");

    let first = agent.register(coordinator.api).await;
    let again = agent.register(coordinator.api).await;

    assert_eq!((first.id, again.id), (agent.id, agent.id));
    assert_eq!((first.epoch, again.epoch), (1, 1));
    assert_eq!(coordinator.api.agents().await.len(), 1);
}

#[tokio::test]
async fn new_process_of_an_agent_gets_the_next_epoch() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let restarted = FakeAgent {
        session: FakeAgent::new("").session,
        ..agent.clone()
    };

    agent.register(coordinator.api).await;
    let again = restarted.register(coordinator.api).await;

    assert_eq!((again.id, again.epoch), (agent.id, 2));
}

#[tokio::test]
async fn many_copies_of_one_registration_at_once_make_one_record() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    let by_hand = json!({ "machine_name": "by hand", "port": 10 });

    let with_id = join_all((0..40).map(|_| agent.register(coordinator.api)));
    let without = join_all((0..40).map(|_| register_id(coordinator.api, &by_hand)));
    let (with_id, without) = tokio::join!(with_id, without);

    assert!(
        with_id
            .iter()
            .all(|granted| (granted.id, granted.epoch) == (agent.id, 1))
    );
    assert!(without.iter().all(|id| *id == without[0]), "{without:?}");
    assert_eq!(coordinator.api.agents().await.len(), 2);
}

#[tokio::test]
async fn registration_without_an_id_is_matched_by_endpoint_never_by_name() {
    let coordinator = TestCoordinator::new().await;
    let at = |name: &str, port: u16| json!({ "machine_name": name, "port": port });

    let first = register_id(coordinator.api, &at("gpu", 10)).await;
    let other_port = register_id(coordinator.api, &at("gpu", 12)).await;
    let renamed = register_id(coordinator.api, &at("renamed", 10)).await;

    assert_eq!(renamed, first);
    assert_ne!(other_port, first);
    assert_eq!(coordinator.api.agent(first).await.machine_name, "renamed");
    assert_eq!(coordinator.api.agents().await.len(), 2);
}

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

async fn register_id(api: Api, body: &Value) -> AgentId {
    let mut answer = api.post("/api/agents", body).await;
    assert!(answer.status.is_success(), "{}", answer.text().await);
    let id = answer.json().await["id"].clone();
    serde_json::from_value(id).expect("it is an id")
}

/// Waits until the coordinator has found out that nothing answers at the agent's address.
async fn wait_until_unreachable(api: Api, id: impl ToString) {
    let is_unreachable = |agent: &AgentView| agent.reason == Some(UnroutableReason::Unreachable);
    api.wait_for_agent(id, "unreachable", is_unreachable).await;
}
