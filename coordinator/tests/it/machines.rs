//! Requests to machines rather than to models: who gets them, and what the client is told.

use std::time::Duration;

use http::{Method, StatusCode, header};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript, simulated_model};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::api::{Answer, request};
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

/// A coordinator with a fleet of machines, `gpu-0` and so on.
struct Fleet {
    coordinator: TestCoordinator,
    runtimes: Vec<ScriptedRuntime>,
    agents: Vec<FakeAgent>,
}

impl Fleet {
    /// Starts a fleet of which each machine has these models.
    async fn with_models(models: &[&[&str]]) -> Self {
        let coordinator = TestCoordinator::new().await;
        let (mut runtimes, mut agents) = (Vec::new(), Vec::new());
        for (at, models) in models.iter().enumerate() {
            let script = RuntimeScript {
                models: models.iter().map(|name| simulated_model(name, 1)).collect(),
                fixed_clock: true,
                ..RuntimeScript::default()
            };
            let runtime = ScriptedRuntime::start(script)
                .await
                .expect("a port is free");
            let agent = FakeAgent::in_front_of(&runtime, &format!("gpu-{at}"));
            agent.join(coordinator.api).await;
            runtimes.push(runtime);
            agents.push(agent);
        }
        Self {
            coordinator,
            runtimes,
            agents,
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.coordinator.api.post(path, body).await
    }

    async fn delete(&self, path: &str, body: &Value) -> Answer {
        let request = request(Method::DELETE, path, body.to_string());
        self.coordinator.api.send(request).await
    }

    /// Returns how often each machine was asked at `path`.
    fn asked(&self, path: &str) -> Vec<usize> {
        let runtimes = self.runtimes.iter();
        runtimes
            .map(|runtime| runtime.recent_requests_to(path))
            .collect()
    }

    /// Returns which machines have a model.
    fn having(&self, name: &str) -> Vec<bool> {
        let runtimes = self.runtimes.iter();
        let has = |runtime: &ScriptedRuntime| {
            let script = runtime.script();
            script.models.iter().any(|model| model.name == name)
        };
        runtimes.map(has).collect()
    }
}

const A: &str = "a:latest";
const PULL: &str = "/api/pull";

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("each line is JSON")
}

#[rstest]
#[case::by_query("/api/pull?agent=GPU-1", None)]
#[case::by_header("/api/pull", Some("gpu-1"))]
#[tokio::test]
async fn pull_to_a_named_machine_passes_its_progress_untouched(
    #[case] path: &str,
    #[case] named: Option<&str>,
) {
    let fleet = Fleet::with_models(&[&[], &[], &[]]).await;
    let body = json!({ "model": "a" });
    let mut pull = request(Method::POST, path, body.to_string());
    if let Some(name) = named {
        let headers = pull.headers_mut();
        headers.insert("x-coordinator-agent", name.parse().unwrap());
    }

    let mut answer = fleet.coordinator.api.send(pull).await;

    let text = answer.text().await;
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/x-ndjson");
    let agent = fleet.agents[1].id.to_string();
    assert_eq!(answer.header("x-coordinator-agent"), agent);
    assert_eq!(fleet.asked(PULL), [0, 1, 0]);
    assert_eq!(fleet.having(A), [false, true, false]);
    let got = fleet.runtimes[1].recent_requests();
    let got = got.iter().find(|got| got.uri.path() == PULL).unwrap();
    assert_eq!(got.uri, PULL);
    assert!(!got.headers.contains_key("x-coordinator-agent"));
    assert_eq!(got.body, body.to_string());
    let direct = ScriptedRuntime::start(RuntimeScript::default()).await;
    let direct = crate::support::api::Api::new(direct.as_ref().unwrap().addr());
    assert_eq!(text, direct.post(PULL, &body).await.text().await);
}

#[rstest]
#[case(Method::POST, "/api/pull", r#"{"model":"b"}"#)]
#[case(Method::POST, "/api/create", r#"{"model":"b","from":"a"}"#)]
#[case(Method::POST, "/api/signout", "")]
#[case(Method::POST, "/api/blobs/sha256:00", "x")]
#[case(Method::DELETE, "/api/delete", "not json")]
#[case(Method::POST, "/api/copy", "{}")]
#[tokio::test]
async fn change_without_a_machine_in_a_fleet_is_refused(
    #[case] method: Method,
    #[case] path: &str,
    #[case] body: &str,
) {
    let fleet = Fleet::with_models(&[&[A], &[A]]).await;

    let change = request(method, path, body.to_owned());
    let mut answer = fleet.coordinator.api.send(change).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let body = answer.json().await;
    let error = body["error"].as_str().unwrap();
    assert!(
        error.contains("x-coordinator-agent") && error.contains("gpu-0, gpu-1"),
        "{error}"
    );
    assert_eq!(fleet.asked(path), [0, 0]);
}

#[tokio::test]
async fn only_machine_need_not_be_named() {
    let fleet = Fleet::with_models(&[&[]]).await;

    let mut answer = fleet.post(PULL, &json!({ "model": "a" })).await;

    let text = answer.text().await;
    assert_eq!(
        lines(&text).last().unwrap(),
        &json!({ "status": "success" })
    );
    assert_eq!(fleet.having(A), [true]);
}

#[tokio::test]
async fn model_is_deleted_where_it_is_and_nowhere_else() {
    let fleet = Fleet::with_models(&[&[A], &["b:latest"], &[A]]).await;

    let mut answer = fleet.delete("/api/delete", &json!({ "name": "A" })).await;

    assert_eq!(answer.status, StatusCode::OK);
    let said = answer.json().await;
    assert_eq!(said["status"], "success");
    let names = |at: usize| said["agents"][at]["name"].clone();
    let mut names = [names(0), names(1)].map(|name| name.as_str().unwrap().to_owned());
    names.sort_unstable();
    assert_eq!(names, ["gpu-0", "gpu-2"]);
    assert_eq!(fleet.asked("/api/delete"), [1, 0, 1]);
    assert_eq!(fleet.having(A), [false, false, false]);
}

#[tokio::test]
async fn deletion_on_one_machine_is_answered_as_by_the_machine() {
    let fleet = Fleet::with_models(&[&[A], &["b:latest"]]).await;

    let mut answer = fleet.delete("/api/delete", &json!({ "model": "b" })).await;

    assert_eq!((answer.status, &*answer.text().await), (StatusCode::OK, ""));
    let agent = fleet.agents[1].id.to_string();
    assert_eq!(answer.header("x-coordinator-agent"), agent);
    assert_eq!(fleet.asked("/api/delete"), [0, 1]);
}

#[tokio::test]
async fn failure_of_one_machine_is_told_with_what_the_others_did() {
    let fleet = Fleet::with_models(&[&[A], &[A]]).await;
    fleet.runtimes[0].set_models(Vec::new()).await;

    let mut answer = fleet.delete("/api/delete", &json!({ "model": "a" })).await;

    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let said = answer.json().await;
    assert_eq!(
        said["error"],
        "1 of 2 machines failed: gpu-0: model 'a' not found"
    );
    let of = |name: &str| {
        let mut agents = said["agents"].as_array().unwrap().iter();
        agents.find(|agent| agent["name"] == name).unwrap()
    };
    assert_eq!(of("gpu-0")["status"], 404);
    assert_eq!(of("gpu-0")["error"], "model 'a' not found");
    assert_eq!(of("gpu-1")["status"], 200);
    assert_eq!(of("gpu-1").get("error"), None);
}

#[tokio::test]
async fn model_that_no_machine_has_any_more_is_not_found() {
    let fleet = Fleet::with_models(&[&[A], &[A]]).await;
    for runtime in &fleet.runtimes {
        runtime.set_models(Vec::new()).await;
    }

    let known = fleet.delete("/api/delete", &json!({ "model": "a" })).await;
    let mut unknown = fleet.delete("/api/delete", &json!({ "model": "x" })).await;

    assert_eq!(known.status, StatusCode::NOT_FOUND);
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    assert_eq!(
        unknown.json().await,
        json!({ "error": "model 'x' not found" })
    );
}

#[tokio::test]
async fn pull_to_several_machines_tells_of_each_and_ends_with_one_line() {
    let fleet = Fleet::with_models(&[&[], &[], &[]]).await;

    let mut answer = fleet
        .post("/api/pull?agent=gpu-0,gpu-2", &json!({ "model": "a" }))
        .await;

    let said = lines(&answer.text().await);
    assert_eq!(answer.header(header::CONTENT_TYPE), "application/x-ndjson");
    let (last, progress) = said.split_last().unwrap();
    assert_eq!(last["status"], "success");
    assert_eq!(last["agents"].as_array().unwrap().len(), 2);
    for name in ["gpu-0", "gpu-2"] {
        let of = |line: &&Value| line["agent"]["name"] == name && line["total"].is_number();
        assert!(progress.iter().any(|line| of(&line)), "{progress:?}");
    }
    assert_eq!(fleet.having(A), [true, false, true]);
}

#[tokio::test]
async fn pull_by_all_machines_can_be_asked_for_in_one_answer() {
    let fleet = Fleet::with_models(&[&[], &[]]).await;

    let pull = json!({ "model": "a", "stream": false });
    let mut answer = fleet.post("/api/pull?agent=all", &pull).await;

    assert_eq!(answer.status, StatusCode::OK);
    let said = answer.json().await;
    assert_eq!(said["status"], "success");
    assert_eq!(said["agents"].as_array().unwrap().len(), 2);
    assert_eq!(fleet.having(A), [true, true]);
}

#[tokio::test]
async fn machine_that_dies_in_mid_pull_is_told_of_while_the_others_go_on() {
    let fleet = Fleet::with_models(&[&[], &[]]).await;
    fleet.runtimes[0]
        .set_failure_everywhere(FailureMode::Reset { after_bytes: 200 })
        .await;

    let pull = json!({ "model": "a" });
    let mut answer = fleet.post("/api/pull?agent=all", &pull).await;

    let said = lines(&answer.text().await);
    let (last, progress) = said.split_last().unwrap();
    assert_eq!(last["error"], "1 of 2 machines failed: gpu-0: it broke off");
    assert!(progress.iter().all(|line| line.get("error").is_none()));
    let failed = json!({ "name": "gpu-0", "id": fleet.agents[0].id });
    let failed = json!({ "agent": failed, "status": "failed: it broke off" });
    assert!(progress.contains(&failed), "{progress:?}");
    assert_eq!(fleet.having(A), [false, true]);
}

#[tokio::test]
async fn named_machine_that_dies_in_mid_pull_ends_in_an_error() {
    let fleet = Fleet::with_models(&[&[], &[]]).await;
    fleet.runtimes[0]
        .set_failure_everywhere(FailureMode::Reset { after_bytes: 200 })
        .await;

    let pull = json!({ "model": "a" });
    let mut answer = fleet.post("/api/pull?agent=gpu-0", &pull).await;

    let (text, _) = answer.read_all().await;
    let last = text.lines().last().unwrap();
    assert!(last.starts_with(r#"{"error":"#), "{text}");
}

#[rstest]
#[case::of_one("/api/pull?agent=gpu-0", [1, 0])]
#[case::of_all("/api/pull?agent=all", [1, 1])]
#[tokio::test]
async fn client_that_leaves_ends_the_work(#[case] path: &str, #[case] cancelled: [u64; 2]) {
    let fleet = Fleet::with_models(&[&[], &[]]).await;
    for runtime in &fleet.runtimes {
        let endless = Duration::from_hours(1);
        runtime
            .change(|script| script.transfer_time = endless)
            .await;
    }

    let mut answer = fleet.post(path, &json!({ "model": "a" })).await;
    let frame = answer.next_frame().await.unwrap();
    assert!(frame.is_some_and(|frame| !frame.is_empty()));
    let in_flight = || async { [0, 1].map(|at: usize| fleet.runtimes[at].in_flight()) };
    wait_for("at work", PATIENCE, in_flight, |at_work| {
        *at_work == cancelled
    })
    .await;
    drop(answer);

    let counts = || async { [0, 1].map(|at: usize| fleet.runtimes[at].cancelled()) };
    wait_for("cancelled", PATIENCE, counts, |counts| *counts == cancelled).await;
}

#[tokio::test]
async fn model_is_shown_by_a_machine_that_has_it_and_can_be_reached() {
    let fleet = Fleet::with_models(&[&[], &[A], &[A]]).await;
    fleet.runtimes[1].set_failure(FailureMode::Refuse).await;

    for _ in 0..3 {
        let shown = fleet.post("/api/show", &json!({ "model": "A" })).await;
        assert_eq!(shown.status, StatusCode::OK);
        let agent = fleet.agents[2].id.to_string();
        assert_eq!(shown.header("x-coordinator-agent"), agent);
    }

    assert_eq!(fleet.asked("/api/show"), [0, 0, 3]);
}

#[tokio::test]
async fn named_machines_alone_answer_a_question() {
    let fleet = Fleet::with_models(&[&[A], &[A], &[A], &["b:latest"]]).await;
    let ask = json!({ "model": "a", "stream": false, "messages": [] });

    for _ in 0..4 {
        let answer = fleet.post("/api/chat?agent=gpu-0,gpu-2", &ask).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let mut elsewhere = fleet.post("/api/chat?agent=gpu-3", &ask).await;
    let mut nobody = fleet.post("/v1/chat/completions?agent=gpu-9", &ask).await;

    let asked = fleet.asked("/api/chat");
    assert_eq!((asked[0] + asked[2], asked[1], asked[3]), (4, 0, 0));
    assert_eq!(elsewhere.status, StatusCode::SERVICE_UNAVAILABLE);
    let error = elsewhere.json().await["error"].to_string();
    assert!(
        error.contains("none of the machines that were named"),
        "{error}"
    );
    assert_eq!(nobody.status, StatusCode::NOT_FOUND);
    assert_eq!(
        nobody.json().await["error"]["message"],
        "no machine is called 'gpu-9'; there are: gpu-0, gpu-1, gpu-2, gpu-3"
    );
}

#[tokio::test]
async fn any_path_of_a_named_machine_can_be_reached() {
    const PROPS: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\
        x-coordinator-agent: another\r\n\r\n{}";
    let coordinator = TestCoordinator::new().await;
    let upstream = FakeUpstream::start(PROPS).await;
    let mut agent = FakeAgent::new("llama");
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;

    let mut props = coordinator.api.get("/props?agent=llama&x=1").await;
    let elsewhere = coordinator.api.get("/props").await;

    assert_eq!((props.status, &*props.text().await), (StatusCode::OK, "{}"));
    assert_eq!(props.header("x-coordinator-agent"), agent.id.to_string());
    assert_eq!(elsewhere.status, StatusCode::NOT_FOUND);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert!(
        requests[0].starts_with("GET /props?x=1 HTTP/1.1\r\n"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn machine_that_is_away_is_not_asked_and_nor_are_those_named_with_it() {
    let fleet = Fleet::with_models(&[&[], &[]]).await;
    fleet.agents[1].leave(fleet.coordinator.api).await;

    let pull = json!({ "model": "a" });
    let mut one = fleet.post("/api/pull?agent=gpu-1", &pull).await;
    let both = fleet.post("/api/pull?agent=gpu-1,gpu-0", &pull).await;

    assert_eq!(one.status, StatusCode::SERVICE_UNAVAILABLE);
    let error = "the machine 'gpu-1' is offline or cannot be reached";
    assert_eq!(one.json().await, json!({ "error": error }));
    assert_eq!(both.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(fleet.asked(PULL), [0, 0]);
}

#[tokio::test]
async fn upload_passes_while_it_still_arrives() {
    let fleet = Fleet::with_models(&[&[], &[]]).await;
    let bytes = vec![7_u8; 3 << 20];
    let path = "/api/blobs/sha256:a5d1fbb56d79a2c4c2b0e6e5b8b9ce1b1b6fbfa4f4ec4a8f6a6d4a7f0a3d9b10";

    let upload = request(Method::POST, &format!("{path}?agent=gpu-1"), bytes);
    let mut answer = fleet.coordinator.api.send(upload).await;

    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let error = answer.json().await["error"].to_string();
    assert!(error.contains("digest mismatch"), "{error}");
    assert_eq!(fleet.asked(path), [0, 1]);
}

#[tokio::test]
async fn machine_without_an_agent_is_looked_at_after_a_change() {
    let coordinator = TestCoordinator::new().await;
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let registration = json!({
        "machine_name": "gpu", "ip_address": "127.0.0.1", "port": runtime.addr().port(),
    });
    let registered = coordinator
        .api
        .post("/api/agents", &registration)
        .await
        .json()
        .await;
    let id = registered["id"].as_str().unwrap();
    coordinator.api.wait_until_routable(id).await;

    let pull = json!({ "model": "a", "stream": false });
    let pulled = coordinator.api.post(PULL, &pull).await;

    assert_eq!(pulled.status, StatusCode::OK);
    let agent = coordinator.api.agent(id).await;
    assert!(
        agent.models.iter().any(|model| model.name == A),
        "{agent:?}"
    );
}

#[rstest]
#[case::one_in_lines("gpu-1", true)]
#[case::one_at_once("gpu-1", false)]
#[case::several_in_lines("all", true)]
#[case::several_at_once("all", false)]
#[tokio::test]
async fn model_that_was_changed_here_is_there_or_gone_from_then_on(
    #[case] who: &str,
    #[case] stream: bool,
) {
    let fleet = Fleet::with_models(&[&[], &[]]).await;
    let model = json!({ "model": "a", "stream": stream });
    let ask = async || {
        let chat = json!({ "model": "a", "messages": [], "stream": false });
        fleet.post("/api/chat", &chat).await.status
    };
    assert_eq!(ask().await, StatusCode::NOT_FOUND);

    fleet
        .post(&format!("{PULL}?agent={who}"), &model)
        .await
        .text()
        .await;
    assert_eq!(ask().await, StatusCode::OK);
    let copy = json!({ "source": "a", "destination": "b" });
    fleet.post("/api/copy", &copy).await.text().await;
    let copied = json!({ "model": "b", "messages": [], "stream": false });
    assert_eq!(
        fleet.post("/api/chat", &copied).await.status,
        StatusCode::OK
    );
    fleet.delete("/api/delete", &model).await.text().await;

    assert_eq!(ask().await, StatusCode::NOT_FOUND);
}
