//! A machine whose owner wants it for themselves: who hears of it, how long it lasts.

use std::time::Duration;

use ollama_agent::pause::Pause;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::pause::Paused;

use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::{FakeCoordinator, Log};
use crate::support::process::{command, ended, messages};

/// Longer than a test: what comes before it came at once.
const LONG: Duration = Duration::from_mins(10);

fn last(log: &Log) -> Option<HeartbeatRequest> {
    log.heartbeats().last().map(|beat| (*beat).clone())
}

fn is_paused(log: &Log) -> bool {
    last(log).is_some_and(|beat| beat.paused.is_some())
}

#[tokio::test]
async fn coordinator_hears_of_a_pause_and_of_its_end_at_once() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(LONG, 3 * LONG);
    let agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;

    agent.control().pause(None).await.unwrap();
    let paused = coordinator.wait_for(is_paused).await;
    agent.control().resume().await.unwrap();

    let resumed = coordinator
        .wait_for(|log| last(log).is_some_and(|beat| beat.paused.is_none()))
        .await;
    let paused = last(&paused).unwrap();
    assert_eq!(paused.paused, Some(Paused { remaining_ms: None }));
    assert!(resumed.heartbeats().len() > 1, "{resumed:?}");
}

#[tokio::test]
async fn pause_with_an_end_says_when_and_ends_by_itself() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(LONG, 3 * LONG);
    let mut agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    let length = Duration::from_secs(1);

    agent.control().pause(Some(length)).await.unwrap();
    let log = coordinator.wait_for(is_paused).await;

    let paused = last(&log).unwrap().paused.unwrap();
    let remaining = Duration::from_millis(paused.remaining_ms.unwrap());
    assert!(remaining <= length, "{remaining:?}");
    agent.wait_for(|status| status.paused.is_none()).await;
    coordinator.wait_for(|log| !is_paused(log)).await;
}

#[tokio::test]
async fn paused_agent_is_still_paused_when_it_starts_again() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let agent = TestAgent::start_with(config(coordinator.url(), state_dir.path()));
    agent.control().pause(None).await.unwrap();
    coordinator.wait_for(is_paused).await;
    agent.stop().await.unwrap();
    coordinator.forget_log();

    let mut agent = TestAgent::start_with(config(coordinator.url(), state_dir.path()));

    let log = coordinator.wait_for(is_paused).await;
    assert!(log.registrations()[0].paused.is_some());
    let status = agent.wait_for(|status| status.agent_id.is_some()).await;
    assert_eq!(status.paused, Some(Pause { until: None }));
}

#[tokio::test]
async fn pause_that_cannot_be_kept_is_refused() {
    let coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let agent = TestAgent::start_with(config(coordinator.url(), state_dir.path()));
    std::fs::create_dir(state_dir.path().join("pause.json")).unwrap();

    let error = agent.control().pause(None).await.unwrap_err();

    assert!(error.to_string().contains("pause.json"), "{error}");
    assert_eq!(agent.control().status().borrow().paused, None);
}

#[tokio::test]
async fn commands_pause_and_resume_the_agent_that_runs() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = command(state_dir.path())
        .args([
            "--coordinator",
            &coordinator.url().to_string(),
            "--panel",
            "0",
        ])
        .spawn()
        .unwrap();
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    let run = |words: &'static [&str]| {
        let mut command = command(state_dir.path());
        ended(command.args(words).spawn().unwrap())
    };

    let paused = run(&["pause", "30m"]).await;
    coordinator.wait_for(is_paused).await;
    let resumed = run(&["resume"]).await;
    coordinator.wait_for(|log| !is_paused(log)).await;

    assert!(paused.status.success(), "{}", messages(&paused));
    let said = String::from_utf8_lossy(&paused.stdout);
    assert!(said.starts_with("Paused until 20"), "{said}");
    assert!(resumed.status.success(), "{}", messages(&resumed));
}

#[tokio::test]
async fn command_without_a_running_agent_says_so() {
    let state_dir = tempfile::tempdir().unwrap();

    let mut command = command(state_dir.path());
    let output = ended(command.arg("pause").spawn().unwrap()).await;

    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(3), "{messages}");
    assert!(
        messages.contains("no agent with a panel uses"),
        "{messages}"
    );
}

#[tokio::test]
async fn agent_without_a_panel_is_not_to_be_started_a_second_time() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let mut agent = command(state_dir.path());
    let _agent = agent
        .env("OLLAMA_AGENT_COORDINATOR", coordinator.url().to_string())
        .env("OLLAMA_AGENT_PANEL", "off")
        .spawn()
        .unwrap();
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let mut command = command(state_dir.path());
    let output = ended(command.arg("pause").spawn().unwrap()).await;

    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(1), "{messages}");
    assert!(messages.contains("has no panel"), "{messages}");
    assert!(!messages.contains("start it"), "{messages}");
}
