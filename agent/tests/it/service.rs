//! The agent as a service: its unit, what it tells systemd, what shells and `man` read. How a service
//! is installed is tried with the coordinator's binary: the code is the same.

use std::path::Path;
use std::process::Output;

use tokio::net::UnixDatagram;
use tokio::process::Command;

use crate::support::DEADLINE;
use crate::support::process::{command, ended, messages};
use crate::support::server::Reserved;

#[cfg(target_os = "linux")]
mod machine;

#[tokio::test]
async fn process_is_ready_without_a_coordinator_and_says_when_it_stops() {
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();
    let path = state_dir.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let agent = command(state_dir.path())
        .args(["--coordinator", &nowhere.url().to_string()])
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .unwrap();

    assert_eq!(heard(&systemd).await, "READY=1");

    let pid = agent.id().unwrap().to_string();
    Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .unwrap();
    assert_eq!(heard(&systemd).await, "STOPPING=1");
    let output = ended(agent).await;
    assert_eq!(output.status.code(), Some(0), "{}", messages(&output));
}

#[tokio::test]
async fn unit_of_the_machine_keeps_everything_in_one_directory() {
    let unit = run(&["service", "unit", "--program", "/usr/bin/ollama-agent"]).await;

    insta::assert_snapshot!(text(&unit));
}

#[tokio::test]
async fn settings_of_any_command_are_meant_for_the_service_after_install() {
    let shown = run(&[
        "service",
        "install",
        "--user",
        "--dry-run",
        "--config",
        "/srv/agent.toml",
        "--coordinator",
        "hub",
    ])
    .await;

    let line = "ollama-agent --config /srv/agent.toml --coordinator hub\n";
    assert!(
        text(&shown).contains(line),
        "{} {}",
        text(&shown),
        messages(&shown)
    );
}

#[tokio::test]
async fn settings_before_the_command_are_meant_for_the_service_too() {
    let words = "--coordinator hub --config /srv/agent.toml service install --user --dry-run";

    let shown = run(&words.split(' ').collect::<Vec<_>>()).await;

    let line = "ollama-agent --coordinator hub --config /srv/agent.toml\n";
    assert!(
        text(&shown).contains(line),
        "{} {}",
        text(&shown),
        messages(&shown)
    );
}

#[tokio::test]
async fn service_that_nobody_tells_a_coordinator_is_not_installed() {
    let home = tempfile::tempdir().unwrap();
    let install = ["service", "install", "--user", "--dry-run"];

    let refused = run_in(home.path(), &install).await;
    let mut told_here = in_home(home.path());
    told_here
        .args(install)
        .env("OLLAMA_AGENT_COORDINATOR", "hub");
    let refused_here = ended(told_here.spawn().unwrap()).await;

    for (refused, command) in [
        (refused, "service install --coordinator http://"),
        (refused_here, "service install --coordinator hub"),
    ] {
        assert_eq!(refused.status.code(), Some(2), "{}", messages(&refused));
        assert!(
            messages(&refused).contains(command),
            "{}",
            messages(&refused)
        );
        assert_eq!(text(&refused), "");
    }
}

#[tokio::test]
async fn service_finds_its_coordinator_in_the_settings_file_or_waits_in_the_panel() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join(".config/ollama-agent/settings.toml");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let install = ["service", "install", "--user", "--dry-run"];

    let waiting = run_in(home.path(), &[&install[..], &["--panel", "11401"]].concat()).await;
    std::fs::write(settings, "coordinator = \"hub\"\n").unwrap();
    let mut told = in_home(home.path());
    told.args(install).env_remove("OLLAMA_AGENT_CONFIG");
    let told = ended(told.spawn().unwrap()).await;

    for accepted in [waiting, told] {
        assert!(
            text(&accepted).contains("\nExecStart="),
            "{}",
            messages(&accepted)
        );
    }
}

#[tokio::test]
async fn settings_that_the_machine_decides_are_refused() {
    for setting in ["--state-dir", "--config"] {
        let refused = run(&["service", "install", "--system", setting, "/srv/agent"]).await;

        assert_eq!(refused.status.code(), Some(2));
        assert!(
            messages(&refused).contains("/var/lib/ollama-agent"),
            "{}",
            messages(&refused)
        );
    }
}

#[tokio::test]
async fn completions_and_man_pages_know_the_agents_commands() {
    let completions = run(&["completions", "bash"]).await;
    let page = run(&["man"]).await;

    for output in [completions, page] {
        assert_eq!(output.status.code(), Some(0), "{}", messages(&output));
        let text = text(&output).replace('\\', "");
        assert!(
            text.contains("--coordinator") && text.contains("service"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn users_own_service_is_started_instead_of_a_second_agent() {
    let home = tempfile::tempdir().unwrap();
    let units = home.path().join(".config/systemd/user");
    std::fs::create_dir_all(&units).unwrap();
    std::fs::write(units.join("ollama-agent.service"), "[Service]\n").unwrap();

    let status = run_in(home.path(), &["status"]).await;
    let doctor = run_in(home.path(), &["doctor"]).await;

    assert_eq!(status.status.code(), Some(4), "{}", messages(&status));
    let said = text(&status);
    assert!(
        said.ends_with("Start it: ollama-agent service start\n"),
        "{said}"
    );
    assert_no_second_agent(&text(&doctor));
    assert!(
        text(&doctor).contains("systemctl --user enable ollama-agent"),
        "{}",
        text(&doctor)
    );
}

fn assert_no_second_agent(said: &str) {
    for advice in [
        "start it: ollama-agent\n",
        "ollama-agent --coordinator",
        "service install",
    ] {
        assert!(!said.contains(advice), "{said}");
    }
}

async fn run(words: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    run_in(home.path(), words).await
}

async fn run_in(home: &Path, words: &[&str]) -> Output {
    ended(in_home(home).args(words).spawn().unwrap()).await
}

fn in_home(home: &Path) -> Command {
    let mut command = command(home);
    command
        .env_remove("OLLAMA_AGENT_STATE_DIR")
        .env("HOME", home);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn heard(systemd: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let received = tokio::time::timeout(DEADLINE, systemd.recv(&mut buffer)).await;
    let length = received.expect("something is told in time").unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}
