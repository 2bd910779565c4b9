//! Who the agent is, over restarts, losses and damage.

use std::fs;
use std::path::Path;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::shutdown::Shutdown;

use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::FakeCoordinator;
use crate::support::server::Reserved;

#[tokio::test]
async fn identity_survives_a_restart() {
    let state_dir = tempfile::tempdir().unwrap();

    let first = registered_id(state_dir.path(), "gpu-01").await;
    let second = registered_id(state_dir.path(), "gpu-01").await;

    assert_eq!(first, second);
}

#[tokio::test]
async fn changed_machine_name_keeps_the_id() {
    let state_dir = tempfile::tempdir().unwrap();

    let before = registered_id(state_dir.path(), "old-name").await;
    let after = registered_id(state_dir.path(), "new-name").await;

    assert_eq!(before, after);
}

#[tokio::test]
async fn lost_state_gives_a_new_id() {
    let state_dir = tempfile::tempdir().unwrap();

    let before = registered_id(state_dir.path(), "gpu-01").await;
    fs::remove_file(state_dir.path().join("agent.json")).unwrap();
    let after = registered_id(state_dir.path(), "gpu-01").await;

    assert_ne!(before, after);
}

#[tokio::test]
async fn unreadable_identity_is_kept_as_evidence_and_replaced() {
    for damage in [
        "",
        "{",
        "{\"agent_id\":\"../../etc/passwd\",\"secret\":\"x\"}",
        "\0\0\0\0",
    ] {
        let state_dir = tempfile::tempdir().unwrap();
        fs::write(state_dir.path().join("agent.json"), damage).unwrap();

        let first = registered_id(state_dir.path(), "gpu-01").await;
        let second = registered_id(state_dir.path(), "gpu-01").await;

        assert_eq!(first, second);
        let names = fs::read_dir(state_dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_evidence = |path: &std::path::PathBuf| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("agent.json.corrupt-")
        };
        let evidence: Vec<_> = names.filter(is_evidence).collect();
        assert_eq!(evidence.len(), 1, "{evidence:?}");
        assert_eq!(fs::read_to_string(&evidence[0]).unwrap(), damage);
    }
}

#[tokio::test]
async fn identity_is_kept_before_the_first_contact() {
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("deep/state");
    let nowhere = Reserved::new();
    let mut agent = TestAgent::start_with(config(nowhere.url(), &state_dir));

    let status = agent.wait_for(|status| status.agent_id.is_some()).await;

    let kept = fs::read_to_string(state_dir.join("agent.json")).unwrap();
    assert!(
        kept.contains(&status.agent_id.unwrap().to_string()),
        "{kept}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn identity_is_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("state");

    registered_id(&state_dir, "gpu-01").await;
    assert_eq!(mode(&state_dir), 0o700);
    assert_eq!(mode(&state_dir.join("agent.json")), 0o600);

    let everybody = fs::Permissions::from_mode(0o644);
    fs::set_permissions(state_dir.join("agent.json"), everybody).unwrap();
    registered_id(&state_dir, "gpu-01").await;
    assert_eq!(mode(&state_dir.join("agent.json")), 0o600);
}

#[tokio::test]
async fn state_directory_that_is_a_file_is_an_error_with_its_path() {
    let parent = tempfile::tempdir().unwrap();
    let state_dir = parent.path().join("state");
    fs::write(&state_dir, "").unwrap();
    let nowhere = Reserved::new();

    let config = config(nowhere.url(), &state_dir);

    let error = ollama_agent::run(config, Shutdown::default())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(&state_dir.display().to_string()),
        "{error}"
    );
    assert_eq!(error.exit_code(), 1);
}

/// Registers once as `machine_name` and returns the id that the coordinator was told.
async fn registered_id(state_dir: &Path, machine_name: &str) -> AgentId {
    let mut coordinator = FakeCoordinator::start();
    let mut config = config(coordinator.url(), state_dir);
    config.machine_name = machine_name.to_owned();
    let agent = TestAgent::start_with(config);
    let log = coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    agent.stop().await.unwrap();
    assert_eq!(log.registrations()[0].machine_name, machine_name);
    log.registrations()[0].agent_id.unwrap()
}
