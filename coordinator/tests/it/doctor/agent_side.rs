//! `ollama-agent doctor`: one broken thing at a time, and which check names it.

mod home;
mod runtime;
mod way;

use std::process::Stdio;

use ollama_coordinator_common::doctor::{Answer, CheckId};
use ollama_coordinator_common::secret::AgentSecret;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};

use super::support::{Patient, contents};
use crate::support::coordinator::TestCoordinator;
#[cfg(target_os = "linux")]
use crate::support::network::Host;
use crate::support::port::ReservedPort;
use crate::support::process::finish;
use crate::support::skip;

async fn runtime() -> ScriptedRuntime {
    let runtime = ScriptedRuntime::start(RuntimeScript::default()).await;
    runtime.expect("a port is free")
}

#[tokio::test]
async fn nothing_is_broken_where_nothing_is_and_nothing_is_changed() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let patient = Patient::new(&coordinator.api.url(), runtime.addr());
    let before = contents(coordinator.data_dir());

    let examined = patient.examine().await;

    examined.assert_warned(CheckId::Agent, "no agent runs");
    for id in [
        CheckId::Settings,
        CheckId::StateDir,
        CheckId::Tcp,
        CheckId::Http,
        CheckId::Coordinator,
        CheckId::Version,
        CheckId::Clock,
        CheckId::Tunnel,
        CheckId::Runtime,
        CheckId::Models,
    ] {
        assert_eq!(examined.check(id).answer, Answer::Ok, "{examined:#?}");
    }
    assert!(!patient.state_dir().exists());
    assert!(coordinator.api.agents().await.is_empty());
    assert_eq!(contents(coordinator.data_dir()), before);
}

#[tokio::test]
async fn running_agent_is_seen_and_not_disturbed() {
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let patient = Patient::new(&coordinator.api.url(), runtime.addr())
        .with("OLLAMA_AGENT_MACHINE_NAME", "gpu-7")
        .with("OLLAMA_AGENT_PANEL", "0");
    let mut running = patient.command();
    let _running = running.stderr(Stdio::null()).spawn().expect("it starts");
    let agents = || coordinator.api.agents();
    let listed = wait_for("routable", PATIENCE, agents, |agents| {
        agents.iter().any(|agent| agent.routable)
    });
    let epoch = listed.await[0].epoch;

    let examined = patient.examine().await;

    assert_eq!(examined.code, Some(0), "{examined:#?}");
    for id in [
        CheckId::Agent,
        CheckId::Tunnel,
        CheckId::Routable,
        CheckId::DuplicateIdentity,
    ] {
        assert_eq!(examined.check(id).answer, Answer::Ok, "{examined:#?}");
    }
    assert_eq!(examined.check(CheckId::Tunnel).found, "is up");
    let after = coordinator.api.agents().await;
    assert_eq!(
        (after.len(), after[0].epoch, after[0].routable),
        (1, epoch, true)
    );
}

#[tokio::test]
async fn text_ends_with_what_to_do() {
    let (nobody, runtime) = (ReservedPort::new(), runtime().await);
    let patient = Patient::new(&format!("http://{}", nobody.addr()), runtime.addr());
    let mut command = patient.command();
    command.arg("doctor");

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(4), "{ended:?}");
    let last: Vec<&str> = ended.stdout.lines().rev().take(2).collect();
    assert!(
        last[1].starts_with("Result: tcp: 127.0.0.1 means this machine"),
        "{ended:?}"
    );
    assert!(last[0].starts_with("Fix:    use the address"), "{ended:?}");
    assert!(ended.stdout.contains("✗ tcp"), "{ended:?}");
    assert!(
        !ended.stdout.contains(AgentSecret::generate().expose()),
        "{ended:?}"
    );
}

/// Makes a host of its own, on which no port is taken and no name is known.
#[cfg(target_os = "linux")]
fn host(test: &str) -> Option<Host> {
    Host::new("alone")
        .map_err(|reason| skip(test, &reason))
        .ok()
}
