//! The data directory in every state that it may be found in.

use std::fs;
use std::path::Path;

use http::{StatusCode, header};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;

use crate::support::agent::FakeAgent;
use crate::support::mount::Mount;
use crate::support::process::{Machine, finish};
use crate::support::skip;

#[tokio::test]
async fn second_coordinator_on_a_directory_is_refused_by_pid() {
    let machine = Machine::new();
    let first = machine.start().await;

    let ended = finish(machine.command_on(0)).await;

    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("process {}", first.id())),
        "{}",
        ended.stderr
    );
    first.kill().await;
    let _third = machine.start().await;
}

#[tokio::test]
async fn registry_of_a_newer_coordinator_is_not_touched() {
    let machine = Machine::new();
    let text = r#"{"format":"agents","schema_version":99,"agents":{"shape":"of tomorrow"}}"#;
    place(&machine.agents_file(), text);

    let ended = machine.run_to_its_end().await;

    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("schema version 99"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read_to_string(machine.agents_file()).unwrap(), text);
    assert_eq!(
        names(&machine.data_dir()),
        ["agents.json", "coordinator.lock"]
    );
}

#[rstest]
#[case::torn(r#"{"format":"agents","schema_version":1,"agen"#, "it is not whole")]
#[case::empty("", "it is empty")]
#[case::zeroes("\0\0\0\0", "it is empty")]
#[case::something_else(r#"{"a":1}"#, "it is not an agents file")]
#[tokio::test]
async fn damaged_registry_is_kept_as_evidence_and_the_last_good_copy_loaded(
    #[case] damaged: &str,
    #[case] cause: &str,
) {
    let machine = Machine::new();
    let process = machine.start().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(machine.api).await;
    FakeAgent::new("gpu-2").register(machine.api).await;
    process.kill().await;
    fs::write(machine.agents_file(), damaged).unwrap();

    let _restarted = machine.start().await;

    let ready = machine.api.get("/readyz").await.json().await;
    let said = ready["registry_detail"].as_str().unwrap();
    assert!(
        said.contains(cause) && said.contains("loaded from the backup"),
        "{said}"
    );
    assert_eq!(machine.api.agent(agent.id).await.machine_name, "gpu-1");
    let evidence = names(&machine.data_dir())
        .into_iter()
        .find(|name| name.contains("corrupt"));
    let evidence = machine.data_dir().join(evidence.unwrap());
    assert_eq!(fs::read_to_string(evidence).unwrap(), damaged);
}

#[tokio::test]
async fn agents_come_back_to_a_registry_that_was_lost_altogether() {
    let machine = Machine::new();
    place(&machine.agents_file(), "damaged");
    let _process = machine.start().await;
    let agent = FakeAgent::new("gpu-1");

    assert_eq!(agent.beat(machine.api).await.status, StatusCode::NOT_FOUND);
    let granted = agent.register(machine.api).await;

    assert_eq!(granted.id, agent.id);
    let ready = machine.api.get("/readyz").await.json().await;
    assert_eq!(ready["registry"], "recovered_empty", "{ready}");
}

#[tokio::test]
async fn full_disk_refuses_new_agents_keeps_the_others_and_heals_by_itself() {
    let mount = match Mount::tmpfs("64k") {
        Ok(mount) => mount,
        Err(reason) => return skip("full disk", &reason),
    };
    let machine = Machine::new();
    let data_dir = format!("--data-dir={}", mount.path().display());
    let _process = machine
        .start_with(|command| {
            command.arg(data_dir);
        })
        .await;
    let (known, new) = (FakeAgent::new("known"), FakeAgent::new("new"));
    known.register(machine.api).await;
    let filler = mount.path().join("filler");
    fs::write(&filler, vec![0; 128 << 10]).unwrap_err();

    let mut refused = new
        .send(machine.api, "/api/agents", &new.registration())
        .await;

    assert_eq!(refused.problem(503).await["code"], "storage_unavailable");
    let retry_after: u64 = refused.header(header::RETRY_AFTER).parse().unwrap();
    assert!((1..=30).contains(&retry_after), "{retry_after}");
    assert_eq!(known.beat(machine.api).await.status, StatusCode::OK);
    assert_eq!(machine.api.agents().await.len(), 1);
    let ready = machine.api.get("/readyz").await.json().await;
    assert!(
        ready["storage"].as_str().unwrap().starts_with("failing"),
        "{ready}"
    );
    fs::remove_file(filler).unwrap();
    let storage = async || machine.api.get("/readyz").await.json().await["storage"].clone();
    wait_for("healed", PATIENCE, storage, |storage| *storage == "ok").await;
    new.register(machine.api).await;
}

#[tokio::test]
async fn read_only_directory_is_refused_at_the_start_by_path() {
    let mount = match Mount::tmpfs("1m") {
        Ok(mount) => mount,
        Err(reason) => return skip("read-only directory", &reason),
    };
    mount.make_read_only();
    let machine = Machine::new();
    let mut command = machine.command();
    command.arg(format!("--data-dir={}", mount.path().display()));

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let path = mount.path().display().to_string();
    assert!(
        ended.stderr.contains(&path) && ended.stderr.contains("not writable"),
        "{}",
        ended.stderr
    );
}

fn place(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it can be made");
    fs::write(path, text).expect("it can be written");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("it is a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("it is readable")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
