//! The process: its first words, its exit status, its reaction to signals.

use rstest::rstest;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::support::coordinator::FakeCoordinator;
use crate::support::process::{command, ended, messages};
use crate::support::server::Reserved;

#[tokio::test]
async fn missing_coordinator_is_explained() {
    let state_dir = tempfile::tempdir().unwrap();

    let output = ended(command(state_dir.path()).spawn().unwrap()).await;

    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(2), "{messages}");
    assert!(messages.contains("--coordinator http://"), "{messages}");
    assert!(
        messages.contains("OLLAMA_AGENT_COORDINATOR=http://"),
        "{messages}"
    );
}

#[tokio::test]
async fn help_and_version_succeed_without_settings() {
    let state_dir = tempfile::tempdir().unwrap();
    for flag in ["--help", "--version"] {
        let output = ended(command(state_dir.path()).arg(flag).spawn().unwrap()).await;

        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("ollama-agent"),
            "{flag}"
        );
    }
}

#[tokio::test]
async fn second_process_on_the_same_state_directory_is_refused() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let coordinator_url = coordinator.url().to_string();
    let start = || {
        command(state_dir.path())
            .args(["--coordinator", &coordinator_url])
            .spawn()
            .unwrap()
    };
    let first = start();
    let pid = first.id().unwrap();
    coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;

    let second = start();

    let output = ended(second).await;
    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(6), "{messages}");
    assert!(messages.contains(&format!("(process {pid})")), "{messages}");
    assert!(messages.contains("--state-dir"), "{messages}");
}

#[tokio::test]
async fn limited_attempts_end_with_status_3() {
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();

    let agent = command(state_dir.path())
        .args(["--coordinator", &nowhere.url().to_string()])
        .args([
            "--register-max-attempts",
            "2",
            "--register-retry-interval",
            "100ms",
        ])
        .spawn()
        .unwrap();

    let output = ended(agent).await;
    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(3), "{messages}");
    assert!(messages.contains("Connection refused"), "{messages}");
    assert!(messages.contains("after 2 attempts"), "{messages}");
}

#[tokio::test]
async fn first_line_says_what_runs_where() {
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();
    let mut agent = command(state_dir.path())
        .args([
            "--coordinator",
            &nowhere.url().to_string(),
            "--log-format",
            "json",
        ])
        .spawn()
        .unwrap();

    let line = first_line(&mut agent).await;

    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let fields = &line["fields"];
    assert_eq!(fields["message"], "Ollama agent started");
    assert_eq!(fields["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(fields["coordinator.url"], nowhere.url().to_string());
    assert_eq!(fields["runtime.url"], "http://127.0.0.1:1");
    assert_eq!(fields["state_dir"], state_dir.path().display().to_string());
}

#[cfg(unix)]
#[rstest]
#[case("-TERM")]
#[case("-INT")]
#[cfg_attr(target_os = "linux", case("-HUP"))]
#[tokio::test]
async fn termination_signal_says_goodbye_and_succeeds(#[case] signal: &str) {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let agent = command(state_dir.path())
        .args(["--coordinator", &coordinator.url().to_string()])
        .spawn()
        .unwrap();
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let pid = agent.id().unwrap().to_string();
    let sent = Command::new("kill")
        .args([signal, &pid])
        .status()
        .await
        .unwrap();

    assert!(sent.success());
    let output = ended(agent).await;
    assert_eq!(output.status.code(), Some(0), "{}", messages(&output));
    coordinator.wait_for(|log| log.goodbyes().len() == 1).await;
}

#[tokio::test]
async fn secret_is_never_logged() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let mut agent = command(state_dir.path())
        .args(["--coordinator", &coordinator.url().to_string()])
        .env("RUST_LOG", "trace")
        .spawn()
        .unwrap();
    let log = coordinator
        .wait_for(|log| log.heartbeats().len() >= 2)
        .await;

    agent.start_kill().unwrap();

    let messages = messages(&ended(agent).await);
    let secret = log.0[0].bearer.as_deref().unwrap();
    assert!(messages.contains("Joined the coordinator"), "{messages}");
    assert!(!messages.contains(secret), "{messages}");
}

async fn first_line(agent: &mut Child) -> String {
    let stderr = agent.stderr.take().unwrap();
    let mut lines = BufReader::new(stderr).lines();
    let line = tokio::time::timeout(crate::support::DEADLINE, lines.next_line()).await;
    line.expect("something is printed in time")
        .unwrap()
        .unwrap()
}
