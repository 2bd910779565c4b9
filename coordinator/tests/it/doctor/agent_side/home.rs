//! What can be wrong with what the agent keeps: identity, state directory, settings.

use ollama_coordinator_common::doctor::{Answer, CheckId};
use serde_json::json;

use super::runtime;
use crate::doctor::support::{Patient, contents};
use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;
use crate::support::mount::Mount;
use crate::support::skip;

#[tokio::test]
async fn identity_that_another_machine_uses_is_named() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let patient = Patient::new(&coordinator.api.url(), runtime.addr());
    let original = FakeAgent::new("the-original");
    keep_identity(&patient, &original);
    original.register(coordinator.api).await;
    let beating = async {
        loop {
            original.beat(coordinator.api).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };

    let examined = tokio::select! {
        examined = patient.examine() => examined,
        () = beating => unreachable!("it beats for ever"),
    };

    examined.assert_broken(CheckId::DuplicateIdentity, "the-original", "agent.json");
}

#[tokio::test]
async fn agent_that_was_just_killed_is_not_taken_for_another_machines() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let patient = Patient::new(&coordinator.api.url(), runtime.addr());
    let killed = FakeAgent::new("this-machine");
    keep_identity(&patient, &killed);
    killed.register(coordinator.api).await;

    let examined = patient.examine().await;

    assert_eq!(
        examined.check(CheckId::DuplicateIdentity).answer,
        Answer::Ok,
        "{examined:#?}"
    );
}

fn keep_identity(patient: &Patient, agent: &FakeAgent) {
    let identity = json!({
        "agent_id": agent.id, "secret": agent.secret.expose(), "created_at": "2026-11-24T12:00:00Z",
    });
    std::fs::create_dir_all(patient.state_dir()).expect("the home is writable");
    let path = patient.state_dir().join("agent.json");
    std::fs::write(path, identity.to_string()).expect("the home is writable");
}

#[tokio::test]
async fn identity_that_makes_no_sense_is_named_and_left_alone() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let patient = Patient::new(&coordinator.api.url(), runtime.addr());
    std::fs::create_dir_all(patient.state_dir()).unwrap();
    std::fs::write(patient.state_dir().join("agent.json"), "{").unwrap();
    let before = contents(&patient.state_dir());

    let examined = patient.examine().await;

    examined.assert_broken(CheckId::Identity, "agent.json", "restore");
    assert_eq!(contents(&patient.state_dir()), before);
}

#[tokio::test]
async fn file_in_place_of_the_state_directory_is_named() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let file = file.path().display().to_string();
    let patient =
        Patient::new(&coordinator.api.url(), runtime.addr()).with("OLLAMA_AGENT_STATE_DIR", &file);

    let examined = patient.examine().await;

    examined.assert_broken(CheckId::StateDir, &file, "--state-dir");
}

#[tokio::test]
async fn state_directory_on_a_read_only_disk_is_named() {
    let disk = match Mount::tmpfs("1m") {
        Ok(disk) => disk,
        Err(reason) => return skip("a state directory on a read-only disk", &reason),
    };
    disk.make_read_only();
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let patient = Patient::new(&coordinator.api.url(), runtime.addr())
        .with("OLLAMA_AGENT_STATE_DIR", &disk.path().display().to_string());

    let examined = patient.examine().await;

    examined.assert_broken(CheckId::StateDir, "Read-only file system", "--state-dir");
}

#[tokio::test]
async fn missing_coordinator_is_a_matter_of_settings_and_the_rest_is_looked_at() {
    let runtime = runtime().await;

    let examined = Patient::new("", runtime.addr()).examine().await;

    examined.assert_broken(
        CheckId::Settings,
        "no coordinator is given",
        "--coordinator",
    );
    assert_eq!(examined.check(CheckId::Runtime).answer, Answer::Ok);
}
