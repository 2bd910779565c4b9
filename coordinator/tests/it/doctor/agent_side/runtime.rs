//! What can be wrong with the runtime.

use std::net::SocketAddr;

use ollama_coordinator_common::doctor::{Answer, CheckId};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;

#[cfg(target_os = "linux")]
use super::host;
use super::runtime;
use crate::doctor::support::{Examined, Patient};
use crate::support::coordinator::TestCoordinator;
#[cfg(target_os = "linux")]
use crate::support::network::run;
use crate::support::port::ReservedPort;
use crate::support::process::finish;
use crate::support::skip;

#[tokio::test]
async fn runtime_that_is_down_is_named() {
    let coordinator = TestCoordinator::new().await;
    let nobody = ReservedPort::new();

    let examined = Patient::new(&coordinator.api.url(), nobody.addr())
        .examine()
        .await;

    let found = format!("http://{}: the runtime does not answer", nobody.addr());
    examined.assert_broken(CheckId::Runtime, &found, "--runtime");
}

#[tokio::test]
async fn coordinator_in_place_of_a_runtime_is_named() {
    let coordinator = TestCoordinator::new().await;

    let examined = Patient::new(&coordinator.api.url(), coordinator.api.addr())
        .examine()
        .await;

    examined.assert_broken(
        CheckId::Runtime,
        "this is an Ollama Coordinator",
        "--runtime",
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn runtime_on_another_port_is_found() {
    const LLAMA_CPP: u16 = 8080;
    let Some(host) = host("a runtime on another port") else {
        return;
    };
    let inside = host.enter();
    let coordinator = TestCoordinator::new().await;
    let elsewhere = ScriptedRuntime::start_on(LLAMA_CPP, RuntimeScript::default()).await;
    let _elsewhere = elsewhere.expect("the host is new");
    let usual = SocketAddr::from(([127, 0, 0, 1], 11434));

    let examined = Patient::new(&coordinator.api.url(), usual).examine().await;

    drop(inside);
    examined.assert_broken(
        CheckId::Runtime,
        "http://127.0.0.1:11434",
        "answers at http://127.0.0.1:8080: use --runtime http://127.0.0.1:8080",
    );
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn runtime_that_ollamas_service_names_is_used() {
    const UNITS: &str = "/etc/systemd/system";
    let test = "what systemd tells Ollama";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can hide a directory");
    }
    if !std::path::Path::new(UNITS).exists() {
        return skip(test, "there is no systemd");
    }
    let coordinator = TestCoordinator::new().await;
    let runtime = runtime().await;
    let port = runtime.addr().port();
    let patient = Patient::new(&coordinator.api.url(), runtime.addr())
        .with("OLLAMA_AGENT_RUNTIME", "")
        .with("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    // In a view of the file system that nobody else has.
    let script = format!(
        "mount -t tmpfs none {UNITS} && mkdir {UNITS}/ollama.service.d && \
         printf '[Service]\\nEnvironment=\"OLLAMA_HOST=0.0.0.0:{port}\"\\n' \
         > {UNITS}/ollama.service.d/override.conf && exec \"$0\" doctor --json"
    );
    let command = patient.within("unshare", &["--mount", "sh", "-c", &script]);
    if let Err(reason) = run(std::process::Command::new("unshare").args(["--mount", "true"])) {
        return skip(test, &reason);
    }

    let examined = Examined::read(finish(command).await);

    assert_eq!(
        examined.check(CheckId::Runtime).answer,
        Answer::Ok,
        "{examined:#?}"
    );
    let settings = &examined.check(CheckId::Settings).found;
    let expected =
        format!("runtime http://127.0.0.1:{port} (environment OLLAMA_HOST of ollama.service)");
    assert!(settings.contains(&expected), "{settings}");
}
