//! Traces: what a collector and an upstream are told of one request.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderValue, Method};
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::chat::{MODEL, ask, chat, joined};
use crate::support::collector::{Collector, attribute};
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 54\r\nconnection: close\r\n\r\n\
    {\"done\":true,\"prompt_eval_count\": 26,\"eval_count\":290}";

#[tokio::test]
async fn spans_join_the_callers_trace_and_the_upstream_joins_them() {
    let collector = Collector::start().await;
    let coordinator = tracing_to(&collector.url).await;
    let (upstream, agent) = joined_upstream(coordinator.api).await;

    call(coordinator.api, &format!("00-{TRACE}-{CALLER}-01")).await;

    let spans = async || collector.spans();
    let spans = wait_for("spans", PATIENCE, spans, |spans| spans.len() == 2).await;
    let [request, attempt] = &spans[..] else {
        unreachable!("two spans")
    };
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE));
    assert_eq!(hex(&request.parent_span_id), CALLER);
    assert_eq!(attempt.parent_span_id, request.span_id);
    assert_eq!(request.name, "POST /api/chat");
    assert_eq!(attribute(request, "http.request.method"), "POST");
    assert_eq!(attribute(request, "url.path"), "/api/chat");
    assert_eq!(attribute(request, "http.response.status_code"), "200");
    assert_eq!(attribute(request, "gen_ai.request.model"), MODEL);
    assert_eq!(attribute(request, "gen_ai.usage.input_tokens"), "26");
    assert_eq!(attribute(request, "gen_ai.usage.output_tokens"), "290");
    for span in &spans {
        let agent = agent.id.to_string();
        assert_eq!(attribute(span, "ollama_coordinator.agent.id"), agent);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    let expected = format!("00-{TRACE}-{}-01", hex(&attempt.span_id));
    assert_eq!(passed_on(&upstream), [expected]);
    assert_eq!(collector.services(), ["ollama-coordinator"]);
}

#[tokio::test]
async fn request_without_a_trace_begins_one() {
    let collector = Collector::start().await;
    let coordinator = tracing_to(&collector.url).await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;

    ask(coordinator.api, 1).await;

    let spans = async || collector.spans();
    let spans = wait_for("spans", PATIENCE, spans, |spans| spans.len() == 2).await;
    assert!(spans[0].parent_span_id.is_empty());
    assert_eq!(spans[0].trace_id, spans[1].trace_id);
}

#[tokio::test]
async fn trace_that_its_caller_does_not_record_passes_untouched() {
    let collector = Collector::start().await;
    let mut coordinator = tracing_to(&collector.url).await;
    let (upstream, _agent) = joined_upstream(coordinator.api).await;
    let unrecorded = format!("00-{TRACE}-{CALLER}-00");

    call(coordinator.api, &unrecorded).await;
    coordinator.stop().await;

    assert_eq!(passed_on(&upstream), [unrecorded]);
    assert_eq!(collector.spans(), Vec::<Span>::new());
}

#[tokio::test]
async fn without_a_collector_the_callers_header_passes_untouched() {
    let coordinator = TestCoordinator::new().await;
    let (upstream, _agent) = joined_upstream(coordinator.api).await;
    let recorded = format!("00-{TRACE}-{CALLER}-01");

    call(coordinator.api, &recorded).await;

    assert_eq!(passed_on(&upstream), [recorded]);
}

#[tokio::test]
async fn refused_request_is_traced() {
    let collector = Collector::start().await;
    let coordinator = tracing_to(&collector.url).await;

    coordinator
        .api
        .post("/api/chat", &chat("hi"))
        .await
        .text()
        .await;

    let spans = async || collector.spans();
    let spans = wait_for("a span", PATIENCE, spans, |spans| spans.len() == 1).await;
    assert_eq!(
        attribute(&spans[0], "ollama_coordinator.outcome"),
        "refused"
    );
    assert_eq!(attribute(&spans[0], "http.response.status_code"), "404");
}

#[tokio::test]
async fn what_is_left_is_sent_at_the_stop() {
    let collector = Collector::start().await;
    let mut coordinator = tracing_to(&collector.url).await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;
    ask(coordinator.api, 3).await;

    coordinator.stop().await;

    assert_eq!(collector.spans().len(), 6);
}

#[tokio::test]
async fn collector_that_is_down_harms_nothing() {
    let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = refusing.local_addr().unwrap();
    drop(refusing);
    let mut coordinator = tracing_to(&format!("http://{addr}")).await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;

    ask(coordinator.api, 3).await;

    let metrics = async || coordinator.api.get("/metrics").await.text().await;
    let line = "ollama_coordinator_traces_dropped_total 3\n";
    wait_for("given up", PATIENCE, metrics, |shown| shown.contains(line)).await;
    ask(coordinator.api, 3).await;
    coordinator.stop().await;
}

#[tokio::test]
async fn collector_that_never_answers_does_not_delay_the_stop_for_long() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let mut coordinator = tracing_to(&format!("http://{addr}")).await;
    let _joined = joined(coordinator.api, RuntimeScript::default()).await;
    ask(coordinator.api, 3).await;

    let asked = Instant::now();
    coordinator.stop().await;

    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
}

async fn tracing_to(url: &str) -> TestCoordinator {
    let endpoint = format!("--otlp-endpoint={url}");
    TestCoordinator::builder().flags(&[&endpoint]).start().await
}

async fn joined_upstream(api: Api) -> (FakeUpstream, FakeAgent) {
    let upstream = FakeUpstream::start(ANSWER).await;
    let mut agent = FakeAgent::new("gpu").with_models(&[MODEL]);
    agent.runtime = upstream.addr;
    agent.join(api).await;
    (upstream, agent)
}

/// Asks as part of a trace.
async fn call(api: Api, traceparent: &str) {
    let mut asked = request(Method::POST, "/api/chat", chat("hi").to_string());
    let value = HeaderValue::from_str(traceparent).expect("it is ASCII");
    asked.headers_mut().insert("traceparent", value);
    api.send(asked).await.text().await;
}

/// Returns the `traceparent` of each request that the upstream got.
fn passed_on(upstream: &FakeUpstream) -> Vec<String> {
    let requests = upstream.requests();
    let lines = requests.iter().flat_map(|request| request.lines());
    let values = lines.filter_map(|line| line.strip_prefix("traceparent: "));
    values.map(ToOwned::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
