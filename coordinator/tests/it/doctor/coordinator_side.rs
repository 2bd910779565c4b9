//! `ollama-coordinator doctor`: this machine, and one agent from both sides.

use ollama_coordinator_common::doctor::{Answer, CheckId};
use ollama_coordinator_common::protocol::runtime::RuntimeStatus;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use serde_json::Value;

use super::support::{Examined, contents};
use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;
use crate::support::mount::Mount;
use crate::support::port::ReservedPort;
use crate::support::process::{Ended, Machine, binary, finish};
use crate::support::skip;

/// Has the coordinator's `doctor` look at a machine.
async fn examine(machine: &Machine, arguments: &[&str]) -> Examined {
    let mut command = binary(machine.home());
    command.args(["doctor", "--json", &format!("--url={}", machine.api.url())]);
    command.args(arguments);
    Examined::read(finish(command).await)
}

#[tokio::test]
async fn running_coordinator_is_examined_without_a_change() {
    let machine = Machine::new();
    let coordinator = machine.start().await;
    FakeAgent::new("gpu-1").register(machine.api).await;
    let before = contents(&machine.data_dir());

    let examined = examine(&machine, &[]).await;

    examined.assert_warned(CheckId::Addresses, "loopback only");
    for id in [
        CheckId::DataDir,
        CheckId::Registry,
        CheckId::Disk,
        CheckId::Coordinator,
    ] {
        assert_eq!(examined.check(id).answer, Answer::Ok, "{examined:#?}");
    }
    let agents = examined.check(CheckId::Agents);
    assert!(
        agents.found.starts_with("0 of 1 get requests; not gpu-1"),
        "{agents}"
    );
    assert_eq!(
        agents.remedy.as_deref(),
        Some("ollama-coordinator doctor gpu-1")
    );
    assert_eq!(contents(&machine.data_dir()), before);
    assert!(coordinator.stop().await.success());
}

#[tokio::test]
async fn coordinator_that_does_not_run_is_a_matter_of_tcp_and_nothing_is_made() {
    let machine = Machine::new();

    let examined = examine(&machine, &[]).await;

    examined.assert_broken(
        CheckId::Tcp,
        "no coordinator runs here",
        "start `ollama-coordinator`",
    );
    assert!(!machine.data_dir().exists());
}

#[tokio::test]
async fn damaged_registry_is_named_and_left_alone() {
    let machine = Machine::new();
    std::fs::create_dir_all(machine.data_dir()).unwrap();
    std::fs::write(machine.agents_file(), "{ \"agents\": [").unwrap();

    let examined = examine(&machine, &[]).await;

    examined.assert_broken(
        CheckId::Registry,
        "agents.json is damaged",
        "restore a backup",
    );
    let left = contents(&machine.data_dir());
    assert_eq!(left, [(machine.agents_file(), b"{ \"agents\": [".to_vec())]);
}

#[tokio::test]
async fn data_directory_on_a_read_only_disk_is_named() {
    let disk = match Mount::tmpfs("1m") {
        Ok(disk) => disk,
        Err(reason) => return skip("a data directory on a read-only disk", &reason),
    };
    disk.make_read_only();
    let data_dir = format!("--data-dir={}", disk.path().display());

    let examined = examine(&Machine::new(), &[&data_dir]).await;

    examined.assert_broken(CheckId::DataDir, "Read-only file system", "--data-dir");
}

#[tokio::test]
async fn full_disk_is_named() {
    let disk = match Mount::tmpfs("4k") {
        Ok(disk) => disk,
        Err(reason) => return skip("a full disk", &reason),
    };
    let data_dir = format!("--data-dir={}", disk.path().display());

    let examined = examine(&Machine::new(), &[&data_dir]).await;

    examined.assert_broken(CheckId::Disk, "0 MiB free", "make room");
}

/// Has the coordinator's `doctor` look at one agent.
async fn both_sides(coordinator: &TestCoordinator, arguments: &[&str]) -> Ended {
    let home = tempfile::tempdir().expect("there is room for a directory");
    let mut command = binary(home.path());
    command
        .args(["doctor", &format!("--url={}", coordinator.api.url())])
        .args(arguments);
    finish(command).await
}

#[tokio::test]
async fn agent_that_left_is_shown_from_both_sides_with_its_last_event() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent {
        link: LinkKind::Tunnel,
        ..FakeAgent::new("lab-07")
    };
    agent.register(coordinator.api).await;
    agent.leave(coordinator.api).await;

    let ended = both_sides(&coordinator, &["lab-07"]).await;

    assert_eq!(ended.code, Some(4), "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(lines[0].starts_with("Checking lab-07 ("), "{ended:?}");
    assert!(lines[0].contains("offline, last heard of:"), "{ended:?}");
    assert!(lines[0].contains("last event: said goodbye"), "{ended:?}");
    assert!(lines[2].contains("from coordinator"), "{ended:?}");
    assert!(lines[2].contains("from agent (last report"), "{ended:?}");
    assert!(lines[3].starts_with("heartbeats"), "{ended:?}");
    assert!(lines[3].contains("✗ none since"), "{ended:?}");
    assert!(lines[3].contains("? not reporting"), "{ended:?}");
    let last = &lines[lines.len() - 2..];
    assert_eq!(
        last[0],
        "Result: the agent there was stopped: it said goodbye"
    );
    assert!(
        last[1].starts_with("Fix:    start it there: ollama-agent"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn agent_whose_address_does_not_answer_is_dialled_anew() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-2");
    agent.register(coordinator.api).await;
    let is_tried = |agent: &AgentView| agent.reason == Some(UnroutableReason::Unreachable);
    coordinator
        .api
        .wait_for_agent(agent.id, "tried", is_tried)
        .await;

    let ended = both_sides(&coordinator, &["gpu-2", "--json"]).await;

    assert_eq!(ended.code, Some(4), "{ended:?}");
    let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(printed["schema"], "ollama-coordinator.doctor.agent/1");
    let rows = printed["rows"].as_array().unwrap();
    let reach = rows.iter().find(|row| row["id"] == "reach").unwrap();
    assert_eq!(reach["coordinator"]["answer"], "error", "{reach}");
    let found = reach["coordinator"]["found"].as_str().unwrap();
    assert!(found.contains("refused"), "{reach}");
    assert_eq!(reach["agent"]["answer"], "ok", "{reach}");
    assert!(
        printed["result"]["found"]
            .as_str()
            .unwrap()
            .contains("unreachable"),
        "{printed}"
    );
}

#[tokio::test]
async fn agent_whose_runtime_is_down_says_so_itself() {
    let coordinator = TestCoordinator::new().await;
    let mut agent = FakeAgent::new("gpu-3");
    agent.link = LinkKind::Tunnel;
    agent.report.status = RuntimeStatus::NotAnswering;
    agent.register(coordinator.api).await;

    let ended = both_sides(&coordinator, &["gpu-3"]).await;

    assert_eq!(ended.code, Some(4), "{ended:?}");
    let runtime = ended
        .stdout
        .lines()
        .find(|line| line.starts_with("runtime"));
    assert!(runtime.unwrap().contains("✗ does not answer"), "{ended:?}");
}

#[tokio::test]
async fn agent_is_found_by_the_start_of_its_id_and_else_those_that_are_known_are_named() {
    let coordinator = TestCoordinator::new().await;
    let agents = [FakeAgent::new("twin"), FakeAgent::new("twin")];
    for (port, agent) in (9..).zip(&agents) {
        let mut body = agent.registration();
        body["port"] = port.into();
        agent.send(coordinator.api, "/api/agents", &body).await;
    }
    let id = agents[1].id.to_string();
    let start: String = id.chars().take(8).collect();

    let by_id = both_sides(&coordinator, &[&start]).await;
    let by_name = both_sides(&coordinator, &["twin"]).await;
    let unknown = both_sides(&coordinator, &["nobody"]).await;

    assert!(by_id.stdout.contains(&id), "{by_id:?}");
    assert_eq!((by_name.code, unknown.code), (Some(4), Some(4)));
    assert!(by_name.stderr.contains(&id), "{by_name:?}");
    assert!(
        unknown.stderr.contains("known are: twin, twin"),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn agent_of_a_coordinator_that_does_not_answer_is_not_looked_for() {
    let nobody = ReservedPort::new();
    let home = tempfile::tempdir().unwrap();
    let mut command = binary(home.path());
    command.args([
        "doctor",
        "gpu-1",
        &format!("--url=http://{}", nobody.addr()),
    ]);

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("no coordinator answers"), "{ended:?}");
}
