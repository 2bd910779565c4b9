//! The request log and the figures: what can be found out about a request afterwards, and what not.

use http::{HeaderValue, Method, StatusCode};
use ollama_coordinator_common::protocol::request::{
    Protocol, RequestOutcome, RequestState, RequestView,
};
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::api::{Answer, Api, request};
use crate::support::chat::{ask, chat, in_memory, joined};
use crate::support::coordinator::TestCoordinator;

const CHAT: &str = "/api/chat";

#[tokio::test]
async fn answered_request_is_remembered_with_how_it_went() {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;

    let mut answer = named(coordinator.api, "my-id.1", &chat("hi")).await;
    let text = answer.text().await;
    let seen = ended(coordinator.api, "my-id.1").await;

    assert_eq!(answer.header("x-coordinator-request"), "my-id.1");
    assert_eq!(seen.outcome, Some(RequestOutcome::Success));
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", CHAT));
    assert_eq!(seen.protocol, Some(Protocol::Ollama));
    assert_eq!(seen.model.as_deref(), Some("simulated-small"));
    assert!(seen.streamed && !seen.has_key);
    assert_eq!(seen.status, Some(200));
    assert_eq!(seen.bytes, Some(text.len() as u64));
    assert!(seen.chunks.is_some_and(|chunks| chunks > 0));
    assert_eq!(seen.completion_tokens, Some(20));
    assert!(seen.prompt_tokens.is_some());
    assert!(seen.first_byte_ms <= Some(seen.duration_ms));
    let [attempt] = &seen.attempts[..] else {
        unreachable!("one attempt, not {:?}", seen.attempts)
    };
    assert_eq!(
        (attempt.agent_id, attempt.agent_name.as_str()),
        (agent.id, "gpu")
    );
    assert_eq!(attempt.outcome.as_deref(), Some("success"));
}

#[tokio::test]
async fn refusal_that_is_passed_on_after_further_tries_is_told_of_the_agent_that_said_it() {
    let coordinator = TestCoordinator::new().await;
    let (refusing, mut agent) = joined(coordinator.api, RuntimeScript::default()).await;
    agent.report.loaded_models = vec![in_memory()];
    agent.register(coordinator.api).await;
    let (gone, other) = joined(coordinator.api, RuntimeScript::default()).await;
    let failure = FailureMode::Status(StatusCode::INTERNAL_SERVER_ERROR);
    refusing.set_failure(failure).await;
    gone.set_failure(FailureMode::Refuse).await;

    let answer = named(coordinator.api, "refused", &chat("hi")).await;
    let seen = ended(coordinator.api, "refused").await;

    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(answer.header("x-coordinator-agent"), agent.id.to_string());
    let tried: Vec<_> = seen.attempts.iter().map(|made| made.agent_id).collect();
    assert_eq!(
        (seen.agent_id, tried),
        (Some(agent.id), vec![agent.id, other.id])
    );
    let page = coordinator.api.get("/metrics").await.text().await;
    let counted = page
        .lines()
        .find(|line| line.starts_with("ollama_coordinator_requests_total{"))
        .expect("it is counted");
    assert!(counted.contains(&agent.id.to_string()), "{counted}");
}

#[rstest]
#[case("/v1/chat/completions", Protocol::OpenAi)]
#[case("/api/chat", Protocol::Ollama)]
#[tokio::test]
async fn tokens_of_an_answer_in_one_piece_are_counted(
    #[case] path: &str,
    #[case] protocol: Protocol,
) {
    let coordinator = TestCoordinator::new().await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;
    let mut whole = chat("hi");
    whole["stream"] = json!(false);

    coordinator.api.post(path, &whole).await.text().await;

    let seen = &when_ended(coordinator.api, 1).await[0];
    assert_eq!(seen.protocol, Some(protocol));
    assert!(!seen.streamed);
    assert_eq!(seen.completion_tokens, Some(20));
}

#[tokio::test]
async fn running_requests_are_shown_first() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, _agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let stalled = FailureMode::Stall { after_bytes: 100 };
    runtime.set_failure(stalled).await;
    let mut running = named(coordinator.api, "running", &chat("hi")).await;
    running.next_frame().await.unwrap();
    runtime.set_failure(FailureMode::None).await;
    ask(coordinator.api, 2).await;
    when_ended(coordinator.api, 2).await;

    let all = list(coordinator.api, "").await;
    let live = list(coordinator.api, "?state=live").await;
    drop(running);
    let left = ended(coordinator.api, "running").await;

    assert_eq!(all.len(), 3);
    assert_eq!(
        (all[0].id.as_str(), all[0].state),
        ("running", RequestState::Streaming)
    );
    assert!(all[0].outcome.is_none() && all[0].attempts[0].outcome.is_none());
    assert_eq!(live.len(), 1);
    assert_eq!(left.outcome, Some(RequestOutcome::Cancelled));
    assert_eq!(left.attempts[0].outcome.as_deref(), Some("cancelled"));
}

#[tokio::test]
async fn refused_request_says_why() {
    let coordinator = TestCoordinator::new().await;
    let nobodys = json!({ "model": "nobody-has-it", "messages": [] });

    let answer = named(coordinator.api, "refused", &nobodys).await;

    let seen = ended(coordinator.api, "refused").await;
    assert_eq!(answer.header("x-coordinator-request"), "refused");
    assert_eq!(seen.outcome, Some(RequestOutcome::Refused));
    assert_eq!(seen.status, Some(404));
    assert!(
        seen.message
            .is_some_and(|message| message.contains("nobody-has-it"))
    );
    assert!(seen.attempts.is_empty() && seen.bytes.is_none());
    let metrics = metrics(coordinator.api).await;
    has(
        &metrics,
        "requests_unanswered_total{reason=\"no_such_model\"} 1",
    );
}

#[tokio::test]
async fn attempts_that_came_to_nothing_are_remembered() {
    let coordinator = TestCoordinator::builder()
        .flags(&["--policy=round-robin"])
        .start()
        .await;
    let (gone, gone_agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let (_alive, alive_agent) = joined(coordinator.api, RuntimeScript::default()).await;
    gone.set_failure(FailureMode::Refuse).await;

    ask(coordinator.api, 4).await;

    let seen = when_ended(coordinator.api, 4).await;
    let retried = seen.iter().find(|seen| seen.attempts.len() == 2);
    let [failed, answered] = &retried.expect("one was retried").attempts[..] else {
        unreachable!("two attempts")
    };
    assert_eq!(failed.agent_id, gone_agent.id);
    assert_eq!(failed.outcome.as_deref(), Some("not_connected"));
    assert_eq!(answered.agent_id, alive_agent.id);
    let metrics = metrics(coordinator.api).await;
    let labels = |id, outcome| format!("{{agent=\"{id}\",outcome=\"{outcome}\"}}");
    let (failed, answered) = (
        labels(gone_agent.id, "not_connected"),
        labels(alive_agent.id, "success"),
    );
    has(&metrics, &format!("attempts_total{failed} 1"));
    has(&metrics, &format!("attempts_total{answered} 4"));
    has(&metrics, &format!("retries_total{answered} 1"));
}

#[tokio::test]
async fn answer_that_broke_off_has_failed() {
    let coordinator = TestCoordinator::new().await;
    let (runtime, _agent) = joined(coordinator.api, RuntimeScript::default()).await;
    let reset = FailureMode::Reset { after_bytes: 200 };
    runtime.set_failure(reset).await;

    let mut answer = named(coordinator.api, "broken", &chat("hi")).await;
    let _broken = answer.read_all().await;

    let seen = ended(coordinator.api, "broken").await;
    assert_eq!(seen.outcome, Some(RequestOutcome::Failed));
    assert_eq!(seen.attempts[0].outcome.as_deref(), Some("broken"));
}

#[tokio::test]
async fn neither_keys_nor_prompts_are_remembered() {
    let coordinator = TestCoordinator::new().await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;
    let bodies = [chat("my-secret").to_string(), "\"my-secret\"".to_owned()];

    for body in bodies {
        let mut asked = request(Method::POST, "/api/chat?key=my-secret", body);
        let key = HeaderValue::from_static("Bearer my-secret");
        asked.headers_mut().insert("authorization", key);
        coordinator.api.send(asked).await.text().await;
    }

    let seen = when_ended(coordinator.api, 2).await;
    assert!(seen.iter().all(|seen| seen.has_key), "{seen:?}");
    for path in ["/api/requests", "/metrics"] {
        let text = coordinator.api.get(path).await.text().await;
        assert!(!text.contains("my-secret"), "{text}");
    }
}

#[rstest]
#[case("3", 3)]
#[case("0", 0)]
#[tokio::test]
async fn only_so_many_requests_are_remembered(#[case] setting: &str, #[case] expected: usize) {
    let setting = format!("--request-log={setting}");
    let coordinator = TestCoordinator::builder().flags(&[&setting]).start().await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;

    for number in 0..5 {
        let id = format!("n{number}");
        named(coordinator.api, &id, &chat("hi")).await.text().await;
    }

    let newest = ["n4", "n3", "n2"];
    let ids = |seen: &Vec<RequestView>| seen.iter().map(|seen| seen.id.clone()).collect::<Vec<_>>();
    let listed = async || list(coordinator.api, "").await;
    let are_newest = |seen: &Vec<RequestView>| ids(seen) == newest[..expected];
    wait_for("the newest", PATIENCE, listed, are_newest).await;
}

#[tokio::test]
async fn newest_of_several_requests_with_one_id_is_shown() {
    let coordinator = TestCoordinator::new().await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;
    named(coordinator.api, "twice", &chat("hi"))
        .await
        .text()
        .await;
    let nobodys = json!({ "model": "nobody-has-it", "messages": [] });

    named(coordinator.api, "twice", &nobodys).await.text().await;

    let seen = ended(coordinator.api, "twice").await;
    assert_eq!(seen.outcome, Some(RequestOutcome::Refused));
}

#[tokio::test]
async fn requests_are_found_by_what_they_were() {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    ask(coordinator.api, 2).await;
    let nobodys = json!({ "model": "nobody-has-it", "messages": [] });
    coordinator.api.post(CHAT, &nobodys).await.text().await;
    when_ended(coordinator.api, 3).await;

    for (filter, expected) in [
        ("?model=simulated-small:latest", 2),
        ("?model=nobody-has-it", 1),
        ("?outcome=refused", 1),
        ("?outcome=success&limit=1", 1),
        (&format!("?agent={}", agent.id), 2),
        ("?agent=00000000-0000-4000-8000-000000000000", 0),
        ("?state=live", 0),
    ] {
        let found = list(coordinator.api, filter).await;

        assert_eq!(found.len(), expected, "{filter}: {found:?}");
    }
}

#[rstest]
#[case("limit=0")]
#[case("limit=10001")]
#[case("outcome=nice")]
#[case("state=dead")]
#[case("agent=gpu")]
#[case("colour=red")]
#[tokio::test]
async fn unusable_filter_is_refused(#[case] filter: &str) {
    let coordinator = TestCoordinator::new().await;

    let path = format!("/api/requests?{filter}");
    let problem = coordinator.api.get(&path).await.problem(400).await;

    assert_eq!(problem["code"], "invalid_request");
}

#[tokio::test]
async fn request_that_nobody_knows_is_not_found() {
    let coordinator = TestCoordinator::new().await;

    let problem = coordinator
        .api
        .get("/api/requests/none")
        .await
        .problem(404)
        .await;

    assert_eq!(problem["code"], "unknown_request");
}

#[tokio::test]
async fn requests_are_counted_by_what_they_were() {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    ask(coordinator.api, 2).await;
    let mut latest = chat("hi");
    latest["model"] = json!("simulated-small:latest");
    let path = "/v1/chat/completions";
    coordinator.api.post(path, &latest).await.text().await;
    when_ended(coordinator.api, 3).await;

    let shown = metrics(coordinator.api).await;

    let pair = format!("model=\"simulated-small\",agent=\"{}\"", agent.id);
    has(
        &shown,
        &format!("requests_total{{protocol=\"ollama\",{pair},status=\"2xx\"}} 2"),
    );
    has(
        &shown,
        &format!("requests_total{{protocol=\"openai\",{pair},status=\"2xx\"}} 1"),
    );
    has(
        &shown,
        &format!("tokens_total{{kind=\"completion\",{pair}}} 60"),
    );
    for name in [
        "request_duration_seconds",
        "first_byte_seconds",
        "queue_wait_seconds",
    ] {
        has(
            &shown,
            &format!("{name}_count{{model=\"simulated-small\"}} 3"),
        );
    }
}

#[tokio::test]
async fn agent_that_was_forgotten_is_no_label_any_more() {
    let coordinator = TestCoordinator::new().await;
    let (_runtime, agent) = joined(coordinator.api, RuntimeScript::default()).await;
    ask(coordinator.api, 1).await;
    when_ended(coordinator.api, 1).await;
    let id = agent.id.to_string();
    assert!(metrics(coordinator.api).await.contains(&id));

    coordinator.api.delete(&format!("/api/agents/{id}")).await;

    assert!(!metrics(coordinator.api).await.contains(&id));
}

async fn named(api: Api, id: &str, body: &Value) -> Answer {
    let mut asked = request(Method::POST, CHAT, body.to_string());
    let id = HeaderValue::from_str(id).expect("a test's id is a header value");
    asked.headers_mut().insert("x-request-id", id);
    api.send(asked).await
}

async fn list(api: Api, query: &str) -> Vec<RequestView> {
    let mut answer = api.get(&format!("/api/requests{query}")).await;
    assert_eq!(answer.status, StatusCode::OK, "{query}");
    answer.parsed().await
}

/// Waits until this request is over.
async fn ended(api: Api, id: &str) -> RequestView {
    let path = format!("/api/requests/{id}");
    let shown = async || api.get(&path).await.parsed::<RequestView>().await;
    let is_over = |seen: &RequestView| seen.state == RequestState::Ended;
    wait_for("the end", PATIENCE, shown, is_over).await
}

/// Waits until so many requests are over.
async fn when_ended(api: Api, count: usize) -> Vec<RequestView> {
    let over = async || {
        let mut seen = list(api, "").await;
        seen.retain(|seen| seen.state == RequestState::Ended);
        seen
    };
    wait_for("the end of all", PATIENCE, over, |seen| seen.len() == count).await
}

async fn metrics(api: Api) -> String {
    api.get("/metrics").await.text().await
}

fn has(metrics: &str, line: &str) {
    let line = format!("ollama_coordinator_{line}");
    assert!(
        metrics.lines().any(|shown| shown == line),
        "{line} is not in\n{metrics}"
    );
}
