//! `ollama-agent status`: what it says and the exit code that stands for it.

use std::path::Path;
use std::process::Output;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::support::coordinator::FakeCoordinator;
use crate::support::process::{command, ended};
use crate::support::runtime::FakeRuntime;
use crate::support::server::Reserved;

fn agent(state_dir: &Path, coordinator: &str, runtime: &str) -> Command {
    let mut command = command(state_dir);
    command
        .env("OLLAMA_AGENT_COORDINATOR", coordinator)
        .env("OLLAMA_AGENT_MACHINE_NAME", "gpu-7")
        .env("OLLAMA_AGENT_PANEL", "0")
        .env("OLLAMA_HOST", runtime);
    command
}

async fn asked(mut command: Command, arguments: &[&str]) -> (Output, String) {
    let output = ended(command.args(arguments).spawn().unwrap()).await;
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// Asks again and again until the status is what is expected, at most for a while.
async fn status_with(make: impl Fn() -> Command, code: i32) -> String {
    status_saying("", make, code).await
}

/// Like [`status_with`], and until it says so: some codes stand for more than one state.
async fn status_saying(words: &str, make: impl Fn() -> Command, code: i32) -> String {
    let asking = async {
        loop {
            let (output, text) = asked(make(), &["status"]).await;
            if output.status.code() == Some(code) && text.contains(words) {
                return text;
            }
        }
    };
    let asked = tokio::time::timeout(crate::support::DEADLINE, asking).await;
    asked.expect("the status becomes so in time")
}

#[tokio::test]
async fn connected_agent_says_where_and_with_what() {
    let coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&["llama3:8b"]);
    let state_dir = tempfile::tempdir().unwrap();
    let (to, from) = (coordinator.url().to_string(), runtime.url().to_string());
    let make = || agent(state_dir.path(), &to, &from);
    let _running: Child = make().spawn().unwrap();

    let text = status_saying("1 model", make, 0).await;
    let (_, json) = asked(make(), &["status", "--json"]).await;

    assert!(
        text.starts_with("Agent        gpu-7 · runs (process "),
        "{text}"
    );
    assert!(text.contains(&format!("connected to {to}")), "{text}");
    assert!(
        text.contains(&format!("Ollama 0.12.6 at {from} · 1 model ·")),
        "{text}"
    );
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["schema"], "ollama-agent.status/1");
    assert_eq!(json["phase"], "connected");
}

#[tokio::test]
async fn missing_runtime_and_missing_coordinator_have_codes_of_their_own() {
    let coordinator = FakeCoordinator::start();
    let nowhere = Reserved::new().url().to_string();
    let there = coordinator.url().to_string();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let no_runtime = || agent(dirs[0].path(), &there, &nowhere);
    let no_coordinator = || agent(dirs[1].path(), &nowhere, &nowhere);
    let _running = [
        no_runtime().spawn().unwrap(),
        no_coordinator().spawn().unwrap(),
    ];

    let runtime = status_with(no_runtime, 7).await;
    let not_connected = format!("not connected to {nowhere}");
    let coordinator = status_saying(&not_connected, no_coordinator, 3).await;

    assert!(runtime.contains("the runtime does not answer"), "{runtime}");
    assert!(
        coordinator.ends_with("Why: ollama-agent doctor\n"),
        "{coordinator}"
    );
}

#[tokio::test]
async fn agent_that_does_not_run_is_told_with_its_identity() {
    let coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let to = coordinator.url().to_string();
    let make = || agent(state_dir.path(), &to, "127.0.0.1:1");

    let (never, before) = asked(make(), &["status"]).await;
    let mut running = make().spawn().unwrap();
    status_with(make, 7).await;
    running.kill().await.unwrap();
    let (killed, after) = asked(make(), &["status", "--json"]).await;

    assert_eq!(
        (never.status.code(), killed.status.code()),
        (Some(4), Some(4))
    );
    assert!(
        before.contains("does not run\nIdentity     none yet in "),
        "{before}"
    );
    assert!(before.ends_with("Start it: ollama-agent\n"), "{before}");
    let after: Value = serde_json::from_str(&after).unwrap();
    assert_eq!(after["phase"], "not_running");
    assert!(after["agent_id"].is_string(), "{after}");
}

#[tokio::test]
async fn agent_without_a_panel_is_asked_about_at_the_coordinator() {
    let coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let to = coordinator.url().to_string();
    let make = || agent(state_dir.path(), &to, "127.0.0.1:1");
    let _running = make().env("OLLAMA_AGENT_PANEL", "off").spawn().unwrap();

    let text = status_with(make, 0).await;

    assert!(text.contains("runs without a panel to ask"), "{text}");
    assert!(text.ends_with("The coordinator hears from it.\n"), "{text}");
}

/// Starts an agent that no command can ask, and waits until its coordinator hears from it.
async fn connected_without_a_panel(state_dir: &Path) -> (FakeCoordinator, Child) {
    let mut coordinator = FakeCoordinator::start();
    let to = coordinator.url().to_string();
    let mut agent = agent(state_dir, &to, "127.0.0.1:1");
    let running = agent.env("OLLAMA_AGENT_PANEL", "off").spawn().unwrap();
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    (coordinator, running)
}

#[tokio::test]
async fn agent_without_a_panel_is_not_said_to_be_cut_off_where_its_coordinator_is_not_known() {
    let state_dir = tempfile::tempdir().unwrap();
    let _running = connected_without_a_panel(state_dir.path()).await;

    let (output, text) = asked(command(state_dir.path()), &["status"]).await;

    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("Its coordinator is not known here"), "{text}");
}

#[tokio::test]
async fn doctor_does_not_guess_the_runtime_of_an_agent_without_a_panel() {
    let state_dir = tempfile::tempdir().unwrap();
    let _running = connected_without_a_panel(state_dir.path()).await;

    let mut doctor = command(state_dir.path());
    doctor.env_remove("OLLAMA_HOST");
    let (_, text) = asked(doctor, &["doctor", "--json"]).await;

    let report: Value = serde_json::from_str(&text).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let runtime = checks.iter().find(|check| check["id"] == "runtime");
    assert_eq!(runtime.unwrap()["answer"], "unknown", "{text}");
}
