//! A machine with the service of a package, which keeps everything where only it may look.

use std::fs::{Permissions, set_permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;

use super::{assert_no_second_agent, text};
use crate::support::DEADLINE;
use crate::support::process::{ended, messages};

const UNITS: &str = "/usr/lib/systemd/system";
/// In a mount namespace of its own; `$0` is the program, with the service manager beside it.
const SET_UP: &str = r#"
    set -e
    mount -t tmpfs none /usr/lib/systemd/system
    mount -t tmpfs none /etc/systemd/system
    mount -t tmpfs none /var/lib
    echo '[Service]' >/usr/lib/systemd/system/ollama-agent.service
    mkdir -p -m 0700 /var/lib/private /var/lib/private/ollama-agent
    ln -s private/ollama-agent /var/lib/ollama-agent
    exec setpriv --reuid=65534 --regid=65534 --clear-groups env PATH="$(dirname "$0")" "$0" "$@"
"#;

/// Such a machine, as nobody sees it.
struct Machine {
    programs: TempDir,
}

impl Machine {
    /// Makes one whose service manager answers like this; `None`: there can be none here.
    fn new(answer: &str) -> Option<Self> {
        let is_root = Path::new("/proc/self").metadata().unwrap().uid() == 0;
        if !is_root || !Path::new(UNITS).exists() {
            let skipped = b"SKIPPED the machine's service: only root can mount\n";
            std::io::stderr().write_all(skipped).unwrap();
            return None;
        }
        let programs = tempfile::tempdir().unwrap();
        set_permissions(programs.path(), Permissions::from_mode(0o755)).unwrap();
        let machine = Self { programs };
        let agent = machine.programs.path().join("ollama-agent");
        std::fs::copy(env!("CARGO_BIN_EXE_ollama-agent"), agent).unwrap();
        machine.program("systemctl", &format!("printf '{answer}'"));
        Some(machine)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.programs.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs the agent's command there.
    async fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", SET_UP])
            .arg(self.programs.path().join("ollama-agent"))
            .args(words)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", "/nonexistent")
            .env("OLLAMA_HOST", "127.0.0.1:1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        ended(command.spawn().unwrap()).await
    }
}

#[tokio::test]
async fn service_that_runs_is_named_to_people_who_may_not_ask_it() {
    let Some(machine) = Machine::new(r"MainPID=4711\nActiveState=active\n") else {
        return;
    };

    let status = machine.run(&["status"]).await;
    let doctor = machine.run(&["doctor"]).await;
    let panel = machine.run(&["panel"]).await;

    let said = text(&status);
    let errors = messages(&status);
    assert_eq!(status.status.code(), Some(1), "{said} {errors}");
    assert!(said.contains("runs as a service of this machine"), "{said}");
    let ask = "Ask it: sudo ollama-agent status\n";
    assert!(said.ends_with(ask), "{said}");
    let said = text(&doctor);
    assert_no_second_agent(&said);
    let whose = "runs (process 4711), a service of this machine (user ollama-agent, ";
    assert!(said.contains(whose), "{said}");
    assert!(said.contains("sudo ollama-agent doctor"), "{said}");
    let said = messages(&panel);
    assert_eq!(panel.status.code(), Some(1), "{said}");
    assert!(said.contains("`sudo ollama-agent status`"), "{said}");
}

#[tokio::test]
async fn service_that_does_not_run_is_to_be_started_as_such() {
    let Some(machine) = Machine::new(r"MainPID=0\nActiveState=inactive\n") else {
        return;
    };

    let status = machine.run(&["status"]).await;
    let doctor = machine.run(&["doctor"]).await;

    let said = text(&status);
    assert_eq!(status.status.code(), Some(4), "{said}");
    let start = "Start it: sudo ollama-agent service start\n";
    assert!(said.ends_with(start), "{said}");
    assert_no_second_agent(&text(&doctor));
}

#[tokio::test]
async fn start_from_a_desktop_shows_the_services_page_and_one_at_login_nothing() {
    let Some(machine) = Machine::new(r"MainPID=4711\nActiveState=active\n") else {
        return;
    };
    let opened = machine.programs.path().join("opened");
    std::fs::write(&opened, "").unwrap();
    set_permissions(&opened, Permissions::from_mode(0o666)).unwrap();
    let script = format!("echo \"$@\" >>'{}'", opened.display());
    machine.program("xdg-open", &script);

    let at_login = machine.run(&["--tray", "--at-login"]).await;
    let by_a_person = machine.run(&["--tray"]).await;

    for ended in [at_login, by_a_person] {
        assert_eq!(ended.status.code(), Some(0), "{}", messages(&ended));
    }
    assert_eq!(first_line(&opened).await, "http://127.0.0.1:11401/");
}

#[tokio::test]
async fn start_from_a_desktop_beside_a_service_that_is_stopped_is_one_like_any_other() {
    let Some(machine) = Machine::new(r"MainPID=0\nActiveState=inactive\n") else {
        return;
    };

    let ended = machine
        .run(&["--tray", "--coordinator", "127.0.0.1:1"])
        .await;

    let said = messages(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    let own = "/nonexistent/.ollama-coordinator/agent";
    assert!(said.contains(own), "{said}");
}

/// Waits until something is written, and returns all of it.
async fn first_line(path: &Path) -> String {
    let reading = async {
        loop {
            let text = std::fs::read_to_string(path).unwrap();
            if text.ends_with('\n') {
                return text.trim_end().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let read = tokio::time::timeout(DEADLINE, reading).await;
    read.expect("something is opened in time")
}
