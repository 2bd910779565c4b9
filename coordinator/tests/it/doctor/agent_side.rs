//! `ollama-agent doctor`: one broken thing at a time, and which check names it.

use std::net::SocketAddr;
use std::process::Stdio;

use chrono::{TimeDelta, Utc};
use ollama_coordinator_common::doctor::{Answer, CheckId};
use ollama_coordinator_common::secret::AgentSecret;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::json;

use super::support::{Examined, Patient, Stranger, contents};
use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;
use crate::support::mount::Mount;
#[cfg(target_os = "linux")]
use crate::support::network::{Host, run};
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
async fn wrong_port_is_a_matter_of_tcp() {
    let (nobody, runtime) = (ReservedPort::new(), runtime().await);
    let patient = Patient::new(&format!("http://{}", nobody.addr()), runtime.addr());

    let examined = patient.examine().await;

    examined.assert_broken(
        CheckId::Tcp,
        "127.0.0.1 means this machine, and no coordinator runs here",
        "use the address of the coordinator's machine",
    );
    assert_eq!(examined.check(CheckId::Runtime).answer, Answer::Ok);
}

#[rstest]
#[case::web_page(
    200,
    "text/html",
    "<title>Campus login</title>",
    "\"Campus login\"",
    "in a browser"
)]
#[case::login(
    401,
    "text/plain",
    "who are you",
    "wants a login",
    "have the reverse proxy let"
)]
#[case::gateway(
    502,
    "text/html",
    "<h1>Bad gateway</h1>",
    "reverse proxy",
    "start the coordinator"
)]
#[case::other(
    404,
    "text/plain",
    "not found",
    "(status 404 Not Found)",
    "usually on port 11400"
)]
#[tokio::test]
async fn something_else_in_place_of_a_coordinator_is_described(
    #[case] status: u16,
    #[case] content_type: &'static str,
    #[case] body: &'static str,
    #[case] found: &str,
    #[case] remedy: &str,
) {
    let stranger = Stranger::answering(status, content_type, body).await;
    let runtime = runtime().await;

    let examined = Patient::new(&stranger.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Coordinator, found, remedy);
}

#[tokio::test]
async fn ollama_in_place_of_a_coordinator_is_described() {
    let runtime = runtime().await;
    let url = format!("http://{}", runtime.addr());

    let examined = Patient::new(&url, runtime.addr()).examine().await;

    examined.assert_broken(
        CheckId::Coordinator,
        "it is Ollama",
        "usually on port 11400",
    );
}

#[rstest]
#[case::tls(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46], "speaks TLS")]
#[case::ssh(b"SSH-2.0-OpenSSH_9.2\r\n", "is an SSH server")]
#[tokio::test]
async fn another_language_is_a_matter_of_http(#[case] bytes: &'static [u8], #[case] found: &str) {
    let stranger = Stranger::saying(bytes).await;
    let runtime = runtime().await;

    let examined = Patient::new(&stranger.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Http, found, "with http://");
}

#[tokio::test]
async fn proxy_that_refuses_is_named_with_its_variable() {
    let refusal = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
    let (proxy, runtime) = (Stranger::saying(refusal).await, runtime().await);
    let patient =
        Patient::new("http://hub.invalid:11400", runtime.addr()).with("HTTPS_PROXY", &proxy.url());

    let examined = patient.examine().await;

    examined.assert_broken(
        CheckId::Proxy,
        &format!(
            "HTTPS_PROXY={} is set, so hub.invalid is asked through it",
            proxy.url()
        ),
        "add hub.invalid to NO_PROXY",
    );
}

#[tokio::test]
async fn old_version_is_a_matter_of_version() {
    let coordinator = Stranger::coordinator(json!({ "oldest_agent": "9.0.0" }), None).await;
    let runtime = runtime().await;

    let examined = Patient::new(&coordinator.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Version, "(needs 9.0.0 or newer)", "update");
}

#[tokio::test]
async fn clock_skew_is_a_warning() {
    let theirs = Utc::now() + TimeDelta::minutes(6);
    let date = theirs.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let coordinator = Stranger::coordinator(json!({}), Some(date)).await;
    let runtime = runtime().await;

    let examined = Patient::new(&coordinator.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_warned(CheckId::Clock, "behind the coordinator's");
}

#[tokio::test]
async fn reverse_proxy_without_upgrades_is_a_matter_of_the_tunnel() {
    let coordinator = Stranger::coordinator(json!({ "lets_upgrade": false }), None).await;
    let runtime = runtime().await;

    let examined = Patient::new(&coordinator.url(), runtime.addr())
        .examine()
        .await;

    examined.assert_broken(CheckId::Tunnel, "lets no tunnel through", "`Upgrade`");
}

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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn wrong_host_is_a_matter_of_its_name() {
    let Some(host) = host("a host name that is not known") else {
        return;
    };
    let inside = host.enter();
    let runtime = runtime().await;

    let examined = Patient::new("http://gpu-hub.invalid:11400", runtime.addr())
        .examine()
        .await;

    drop(inside);
    examined.assert_broken(
        CheckId::Name,
        "`gpu-hub.invalid` is not found",
        "IP address",
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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn firewall_that_drops_is_a_matter_of_tcp() {
    let hosts = ["here", "hub"].map(Host::new);
    let [here, hub] = match hosts {
        [Ok(here), Ok(hub)] => [here, hub],
        [Err(reason), _] | [_, Err(reason)] => return skip("a firewall that drops", &reason),
    };
    here.connect(("eth0", "10.9.0.20/24"), &hub, ("eth0", "10.9.0.10/24"))
        .unwrap();
    let rules = "table inet filter { chain into { type filter hook input priority 0; \
        tcp dport 11400 drop; }; }";
    hub.nft(rules).unwrap();
    let inside = here.enter();
    let runtime = runtime().await;

    let examined = Patient::new("http://10.9.0.10:11400", runtime.addr())
        .examine()
        .await;

    drop(inside);
    examined.assert_broken(
        CheckId::Tcp,
        "10.9.0.10:11400",
        "allow TCP port 11400 there",
    );
}
