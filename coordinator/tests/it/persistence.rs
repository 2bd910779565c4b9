//! What is there after an end, whatever the end was, and what the data directory may look like.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::{Method, StatusCode, header};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::AgentStatus;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::coordinator::TestCoordinator;
use crate::support::mount::Mount;
use crate::support::process::{Machine, finish};
use crate::support::skip;

const LEGACY: &str = r#"[
  {"id": "11111111-1111-4111-8111-111111111111", "hostname": "gpu-1", "ip_address": "127.0.0.1",
   "port": 9, "ollama_version": "0.1.9", "status": "online",
   "last_heartbeat": "2025-10-30T01:02:03Z", "registered_at": "2025-10-29T00:00:00Z"},
  {"id": "not an id", "hostname": "gpu-2", "ip_address": "127.0.0.1"}
]"#;

#[tokio::test]
async fn registration_survives_sigkill_right_after_its_answer() {
    let machine = Machine::new();
    let process = machine.start().await;
    let agent = FakeAgent::new("gpu-1");

    let granted = agent.register(machine.api).await;
    process.kill().await;

    let _restarted = machine.start().await;
    let known = machine.api.agent(agent.id).await;
    assert_eq!(
        (known.machine_name.as_str(), known.epoch),
        ("gpu-1", granted.epoch)
    );
}

#[tokio::test]
async fn registrations_acknowledged_while_it_stops_are_kept() {
    let machine = Machine::new();
    let process = machine.start().await;
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        clients.spawn(register_until_refused(machine.api));
    }
    wait_for(
        "some agents",
        PATIENCE,
        || machine.api.agents(),
        |agents| agents.len() > 20,
    )
    .await;

    let status = process.stop().await;

    assert!(status.success(), "{status}");
    let acknowledged = clients.join_all().await.concat();
    let _restarted = machine.start().await;
    let known: Vec<_> = machine
        .api
        .agents()
        .await
        .iter()
        .map(|agent| agent.id)
        .collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|id| !known.contains(id))
        .collect();
    assert!(lost.is_empty(), "{lost:?} of {}", acknowledged.len());
}

#[tokio::test]
async fn second_sigterm_does_not_wait_for_requests() {
    let machine = Machine::new();
    let process = machine.start().await;
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let agent = FakeAgent::in_front_of(&runtime, "gpu-1");
    agent.join(machine.api).await;
    runtime
        .set_failure(FailureMode::Stall { after_bytes: 10 })
        .await;
    let chat = json!({ "model": "simulated-small", "messages": [] });
    let mut stream = machine.api.post("/api/chat", &chat).await;
    stream.next_frame().await.unwrap();

    process.signal(Signal::TERM);
    let is_refused = async || {
        machine
            .api
            .try_send(request(Method::GET, "/", ""))
            .await
            .is_err()
    };
    wait_for("no new connections", PATIENCE, is_refused, |refused| {
        *refused
    })
    .await;
    process.signal(Signal::TERM);
    process.ended(PATIENCE).await;

    let (_, error) = stream.read_all().await;
    assert!(error.is_some(), "the stream must not look complete");
}

#[tokio::test]
async fn request_in_flight_is_finished_before_the_end() {
    let machine = Machine::new();
    let process = machine.start().await;
    let runtime = ScriptedRuntime::start(RuntimeScript {
        first_token_delay: Duration::from_millis(300),
        ..RuntimeScript::default()
    });
    let runtime = runtime.await.unwrap();
    FakeAgent::in_front_of(&runtime, "gpu-1")
        .join(machine.api)
        .await;
    let chat = json!({ "model": "simulated-small", "messages": [], "stream": false });
    let mut clients = JoinSet::new();
    let api = machine.api;
    clients.spawn(async move { api.post("/api/chat", &chat).await.json().await });
    wait_for(
        "in flight",
        PATIENCE,
        async || runtime.in_flight(),
        |count| *count == 1,
    )
    .await;

    let status = process.stop().await;

    assert!(status.success(), "{status}");
    assert_eq!(clients.join_all().await[0]["done"], true);
}

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
async fn registry_of_the_earlier_product_is_taken_over_once_and_left_alone() {
    let machine = Machine::new();
    let legacy = machine.home().join(".llm-router/agents.json");
    fs::create_dir(legacy.parent().unwrap()).unwrap();
    fs::write(&legacy, LEGACY).unwrap();

    let process = machine.start().await;

    let agents = machine.api.agents().await;
    assert_eq!(agents.len(), 1);
    assert_eq!(
        (agents[0].machine_name.as_str(), agents[0].status),
        ("gpu-1", AgentStatus::Offline)
    );
    let ready = machine.api.get("/readyz").await.json().await;
    let said = ready["registry"].as_str().unwrap();
    assert!(
        said.starts_with("1 agents imported from") && said.ends_with("1 entries skipped"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(&legacy).unwrap(), LEGACY);
    machine
        .api
        .delete(&format!("/api/agents/{}", agents[0].id))
        .await;
    process.stop().await;
    let _restarted = machine.start().await;
    assert_eq!(machine.api.agents().await, [], "imported a second time");
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
    let said = ready["registry"].as_str().unwrap();
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
    assert!(
        ready["registry"]
            .as_str()
            .unwrap()
            .contains("the registry starts empty"),
        "{ready}"
    );
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
    assert_eq!(refused.header(header::RETRY_AFTER), "2");
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

#[tokio::test]
async fn registry_deleted_while_running_is_written_anew() {
    let coordinator = TestCoordinator::new().await;
    let (one, other) = (FakeAgent::new("one"), FakeAgent::new("other"));
    one.register(coordinator.api).await;
    fs::remove_file(coordinator.agents_file()).unwrap();

    other.register(coordinator.api).await;

    let text = fs::read_to_string(coordinator.agents_file()).unwrap();
    assert!(
        text.contains(&one.id.to_string()) && text.contains(&other.id.to_string()),
        "{text}"
    );
}

#[tokio::test]
async fn agent_newer_than_a_restored_backup_comes_back_and_no_epoch_is_used_twice() {
    let mut coordinator = TestCoordinator::new().await;
    let mut agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let backup = fs::read(coordinator.agents_file()).unwrap();
    agent.session = FakeAgent::new("").session;
    let latest = agent.register(coordinator.api).await.epoch;
    coordinator.stop().await;
    fs::write(coordinator.agents_file(), backup).unwrap();
    coordinator.start().await;
    let newer = json!({ "session": agent.session, "epoch": latest });

    let beat = agent
        .send(coordinator.api, &agent.path("/heartbeat"), &newer)
        .await;
    let mut registration = agent.registration();
    registration["epoch"] = json!(latest);
    let mut again = agent
        .send(coordinator.api, "/api/agents", &registration)
        .await;

    assert_eq!(
        (beat.status, again.status),
        (StatusCode::NOT_FOUND, StatusCode::OK)
    );
    assert!(again.json().await["epoch"].as_u64() > Some(latest));
}

#[tokio::test]
async fn heartbeats_and_unchanged_registrations_do_not_touch_the_disk() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let before = fs::read_to_string(coordinator.agents_file()).unwrap();

    for _ in 0..20 {
        assert_eq!(agent.beat(coordinator.api).await.status, StatusCode::OK);
        agent.register(coordinator.api).await;
    }

    let after = fs::read_to_string(coordinator.agents_file()).unwrap();
    assert_eq!(after, before, "each commit has a generation of its own");
}

/// Registers new agents until the coordinator is gone; returns those that were accepted.
async fn register_until_refused(api: Api) -> Vec<AgentId> {
    let mut accepted = Vec::new();
    loop {
        let agent = FakeAgent::new("gpu");
        let body = agent.registration().to_string();
        let registration = agent.signed(request(Method::POST, "/api/agents", body));
        match api.try_send(registration).await {
            Ok(answer) if answer.status == StatusCode::CREATED => accepted.push(agent.id),
            Ok(answer) => assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE),
            Err(_gone) => return accepted,
        }
    }
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
