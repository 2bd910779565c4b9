//! Runtimes that are missing, come, go and change.

use std::time::Duration;

use ollama_agent::Config;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::runtime::{RuntimeReport, RuntimeStatus};
use tempfile::TempDir;

use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::{FakeCoordinator, Log};
use crate::support::runtime::FakeRuntime;
use crate::support::server::Reserved;

#[tokio::test]
async fn missing_runtime_is_reported_and_then_appears() {
    let mut coordinator = FakeCoordinator::start();
    let reserved = Reserved::new();
    let (config, _state_dir) = fronting(&coordinator, reserved.url());
    let _agent = TestAgent::start_with(config);
    let joined = coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let _runtime = FakeRuntime::start_at(reserved, &["a:latest"]);

    let log = coordinator
        .wait_for(|log| reports_running(log, &["a:latest"]))
        .await;
    let first = joined.registrations()[0].runtime.as_ref().unwrap();
    assert_eq!(first.status, RuntimeStatus::NotAnswering);
    assert_eq!(log.registrations().len(), 1);
}

#[tokio::test]
async fn runtime_that_vanishes_is_reported_without_its_models() {
    let mut coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&["a:latest"]);
    let (config, _state_dir) = fronting(&coordinator, runtime.url());
    let _agent = TestAgent::start_with(config);
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let _reserved = runtime.stop().await;

    let gone = |log: &Log| {
        last_report(log).is_some_and(|report| report.status == RuntimeStatus::NotAnswering)
    };
    let log = coordinator.wait_for(gone).await;
    assert!(last_report(&log).unwrap().models.is_empty());
}

#[tokio::test]
async fn news_about_models_does_not_wait_for_a_long_interval() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(Duration::from_mins(10), Duration::from_mins(21));
    let runtime = FakeRuntime::start(&["a:latest"]);
    let (config, _state_dir) = fronting(&coordinator, runtime.url());
    let _agent = TestAgent::start_with(config);
    coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;

    runtime.set_models(&["b:latest", "a:latest"]);

    coordinator
        .wait_for(|log| reports_running(log, &["a:latest", "b:latest"]))
        .await;
}

#[tokio::test]
async fn report_is_sent_once_while_nothing_changes() {
    let mut coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&["a:latest"]);
    let (config, _state_dir) = fronting(&coordinator, runtime.url());
    let _agent = TestAgent::start_with(config);
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    runtime.set_models(&["b:latest"]);

    let log = coordinator
        .wait_for(|log| reports_running(log, &["b:latest"]))
        .await;
    let count = log.heartbeats().len();
    let log = coordinator
        .wait_for(|log| log.heartbeats().len() >= count + 5)
        .await;
    let reports = log
        .heartbeats()
        .iter()
        .filter(|beat| beat.runtime.is_some())
        .count();
    assert_eq!(reports, 1, "{log:?}");
}

#[tokio::test]
async fn coordinator_in_place_of_a_runtime_is_not_fronted() {
    let mut coordinator = FakeCoordinator::start();
    let health = axum::Json(serde_json::json!({ "service": "ollama-coordinator" }));
    let version = axum::Json(serde_json::json!({ "version": "0.12.6" }));
    let routes = axum::Router::new()
        .route("/healthz", axum::routing::get(async move || health))
        .route("/api/version", axum::routing::get(async move || version));
    let other = Reserved::new().serve(routes);
    let (config, _state_dir) = fronting(&coordinator, other.url());

    let mut agent = TestAgent::start_with(config);

    let status = agent
        .wait_for(|status| status.runtime.error.is_some())
        .await;
    let error = status.runtime.error.unwrap();
    assert!(error.contains("this is an Ollama Coordinator"), "{error}");
    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    let report = log.registrations()[0].runtime.as_ref().unwrap();
    assert_eq!(report.status, RuntimeStatus::NotAnswering);
}

fn fronting(coordinator: &FakeCoordinator, runtime: BaseUrl) -> (Config, TempDir) {
    let state_dir = tempfile::tempdir().unwrap();
    let config = config(coordinator.url(), state_dir.path());
    (Config { runtime, ..config }, state_dir)
}

fn last_report(log: &Log) -> Option<&RuntimeReport> {
    log.heartbeats()
        .into_iter()
        .rev()
        .find_map(|beat| beat.runtime.as_ref())
}

fn reports_running(log: &Log, models: &[&str]) -> bool {
    last_report(log).is_some_and(|report| {
        let names: Vec<&str> = report
            .models
            .iter()
            .map(|model| model.name.as_str())
            .collect();
        report.status == RuntimeStatus::Running && names == models
    })
}
