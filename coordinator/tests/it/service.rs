//! The binary as a service: what `service` does with a service manager that only writes down what it
//! is told, what the unit is worth to systemd's own judge, and what the process tells systemd.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ollama_simulator::wait::PATIENCE;
use rstest::rstest;
use tempfile::TempDir;
use tokio::net::UnixDatagram;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::process::{Ended, Machine, binary, finish};
use crate::support::skip;

const UNIT: &str = ".config/systemd/user/ollama-coordinator.service";
/// 0 is closed to everything, 10 open to everything; a web server as packaged has 9.
const MOST_EXPOSED: f64 = 2.0;

/// A user with a service manager that writes down what it is told.
struct User {
    home: TempDir,
}

impl User {
    fn new() -> Self {
        Self::with_systemctl("exit 0")
    }

    fn with_systemctl(end: &str) -> Self {
        let home = tempfile::tempdir().expect("there is room for a directory");
        let user = Self { home };
        fs::create_dir(user.path("bin")).expect("the home is writable");
        let log = user.path("told");
        let script = format!("#!/bin/sh\necho \"$@\" >>'{}'\n{end}\n", log.display());
        fs::write(user.path("bin/systemctl"), script).expect("the home is writable");
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(user.path("bin/systemctl"), executable).expect("the home is writable");
        user
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    async fn service(&self, words: &str) -> Ended {
        self.run(&format!("service {words}")).await
    }

    async fn run(&self, words: &str) -> Ended {
        let mut command = binary(self.home.path());
        command.env("PATH", self.path("bin"));
        command.args(words.split_whitespace());
        finish(command).await
    }

    /// Returns what the service manager has been told since the last time.
    fn told(&self) -> Vec<String> {
        let told = fs::read_to_string(self.path("told")).unwrap_or_default();
        fs::write(self.path("told"), "").expect("the home is writable");
        told.lines().map(str::to_owned).collect()
    }

    fn unit(&self) -> String {
        fs::read_to_string(self.path(UNIT)).unwrap_or_default()
    }

    /// Returns every file below the home except those of this test.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.home.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).expect("the home is writable") {
                let path = entry.expect("the home is writable").path();
                if path.is_dir() {
                    dirs.push(path);
                } else if !path.starts_with(self.path("bin")) && path != self.path("told") {
                    found.push(path);
                }
            }
        }
        found
    }
}

#[tokio::test]
async fn service_is_installed_once_changed_and_removed_without_a_trace() {
    let user = User::new();

    let first = user.service("install --user --port 11499").await;

    assert_eq!(first.code, Some(0), "{}", first.stderr);
    assert!(
        first.stdout.contains("is installed and runs"),
        "{}",
        first.stdout
    );
    let enable = "--user enable --now ollama-coordinator.service";
    assert_eq!(user.told(), ["--user daemon-reload", enable]);
    let program = env!("CARGO_BIN_EXE_ollama-coordinator");
    let line = format!("\nExecStart={program} --port 11499\n");
    assert!(user.unit().contains(&line), "{}", user.unit());

    let again = user.service("install --user --port 11499").await;

    assert!(
        again.stdout.contains("installed already, just like this"),
        "{}",
        again.stdout
    );
    assert_eq!(user.told(), [enable]);

    let changed = user.service("install --user --port 11500").await;

    assert!(
        changed.stdout.contains("with the new flags"),
        "{}",
        changed.stdout
    );
    let restart = "--user restart ollama-coordinator.service";
    assert_eq!(user.told(), ["--user daemon-reload", enable, restart]);
    assert!(user.unit().contains("--port 11500"), "{}", user.unit());

    let removed = user.service("uninstall --user").await;

    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    let disable = "--user disable --now ollama-coordinator.service";
    assert_eq!(user.told(), [disable, "--user daemon-reload"]);
    assert_eq!(user.files(), [] as [PathBuf; 0]);
}

#[rstest]
#[case("start", "--user start ollama-coordinator.service")]
#[case("stop", "--user stop ollama-coordinator.service")]
#[case("status", "--user status --no-pager ollama-coordinator.service")]
#[tokio::test]
async fn installed_service_is_passed_on_to_the_service_manager(
    #[case] word: &str,
    #[case] told: &str,
) {
    let user = User::new();
    user.service("install --user").await;
    user.told();

    let ended = user.service(&format!("{word} --user")).await;

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(user.told(), [told]);
}

#[rstest]
#[case("start")]
#[case("stop")]
#[case("status")]
#[case("uninstall")]
#[tokio::test]
async fn service_that_is_not_installed_is_told_so(#[case] word: &str) {
    let user = User::new();

    let ended = user.service(&format!("{word} --user")).await;

    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("`ollama-coordinator service install`"),
        "{}",
        ended.stderr
    );
    assert_eq!(user.told(), [] as [&str; 0]);
}

#[rstest]
#[case("--prot 1", "--prot")]
#[case("--port 70000", "65535")]
#[case("agents", "`agents` is a command")]
#[case("--data-dir here", "--data-dir needs an absolute path")]
#[tokio::test]
async fn flags_that_the_service_could_not_run_with_install_nothing(
    #[case] flags: &str,
    #[case] reason: &str,
) {
    let user = User::new();

    let ended = user.service(&format!("install --user {flags}")).await;

    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(reason), "{}", ended.stderr);
    assert_eq!(user.files(), [] as [PathBuf; 0]);
    assert_eq!(user.told(), [] as [&str; 0]);
}

#[tokio::test]
async fn dry_run_shows_the_file_and_the_commands_and_does_nothing() {
    let user = User::new();

    let shown = user.service("install --user --dry-run --port 11499").await;

    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let program = env!("CARGO_BIN_EXE_ollama-coordinator");
    let home = user.home.path().display().to_string();
    let text = shown.stdout.replace(program, "[program]");
    insta::assert_snapshot!("service_dry_run", text.replace(&home, "[home]"));
    assert_eq!(user.files(), [] as [PathBuf; 0]);
    assert_eq!(user.told(), [] as [&str; 0]);
}

#[tokio::test]
async fn unit_that_somebody_else_wrote_is_left_alone() {
    let user = User::new();
    fs::create_dir_all(user.path(UNIT).parent().unwrap()).unwrap();
    fs::write(user.path(UNIT), "[Service]\nExecStart=/bin/true\n").unwrap();

    for words in ["install --user", "uninstall --user"] {
        let ended = user.service(words).await;

        assert_eq!(ended.code, Some(1), "{words}");
        assert!(ended.stderr.contains("left alone"), "{}", ended.stderr);
    }
    assert!(user.unit().contains("/bin/true"));
    assert_eq!(user.told(), [] as [&str; 0]);
}

#[tokio::test]
async fn service_that_does_not_start_names_its_log() {
    let user = User::with_systemctl("case $* in *enable*) exit 1;; esac");

    let ended = user.service("install --user").await;

    assert_eq!(ended.code, Some(1));
    let hint = "see journalctl --user -u ollama-coordinator";
    assert!(ended.stderr.contains(hint), "{}", ended.stderr);
}

#[tokio::test]
async fn machine_without_a_service_manager_is_left_as_it_is() {
    let user = User::new();
    fs::remove_file(user.path("bin/systemctl")).unwrap();

    let ended = user.service("install --user").await;

    assert_eq!(ended.code, Some(1));
    assert!(
        ended.stderr.contains("systemctl is not found"),
        "{}",
        ended.stderr
    );
    assert_eq!(user.files(), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn service_that_does_not_run_is_started_instead_of_a_second_coordinator() {
    let answer = "case $* in *show*) echo MainPID=0; echo ActiveState=failed;; esac";
    let user = User::with_systemctl(answer);
    user.service("install --user").await;

    let agents = user.run("agents --url http://127.0.0.1:1").await;
    let doctor = user.run("doctor --url http://127.0.0.1:1").await;

    assert_eq!(agents.code, Some(3), "{}", agents.stderr);
    let start = "ollama-coordinator service start";
    assert!(agents.stderr.contains(start), "{}", agents.stderr);
    assert_eq!(doctor.code, Some(4), "{}", doctor.stdout);
    let fix = format!("Fix:    {start}\n");
    assert!(doctor.stdout.ends_with(&fix), "{}", doctor.stdout);
}

#[tokio::test]
async fn process_tells_systemd_when_it_serves_and_when_it_stops() {
    let machine = Machine::new();
    let path = machine.home().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();

    let coordinator = machine
        .start_with(|command| {
            command.env("NOTIFY_SOCKET", &path);
        })
        .await;

    assert_eq!(heard(&systemd).await, "READY=1");
    let status = coordinator.stop().await;
    assert_eq!(heard(&systemd).await, "STOPPING=1");
    assert_eq!(status.code(), Some(0));
}

async fn heard(systemd: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let received = timeout(PATIENCE, systemd.recv(&mut buffer)).await;
    let length = received
        .expect("something is told in time")
        .expect("it is read");
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

#[tokio::test]
async fn unit_is_understood_by_systemd_and_as_closed_as_it_is_meant_to_be() {
    let user = User::new();
    let unit = user.path("ollama-coordinator.service");
    let program = env!("CARGO_BIN_EXE_ollama-coordinator");
    let printed = user.service(&format!("unit --program {program}")).await;
    fs::write(&unit, &printed.stdout).unwrap();

    let Some(verified) = analyze(&["verify", "--man=no"], &unit).await else {
        return skip("the unit", "systemd-analyze is not installed");
    };

    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
    let judged = analyze(&["security", "--offline=true", "--no-pager"], &unit).await;
    let judged = judged.expect("it is there").stdout;
    let verdict = judged
        .lines()
        .find(|line| line.contains("Overall exposure level"));
    let level = verdict.and_then(|line| line.rsplit_once(": ")?.1.split(' ').next()?.parse().ok());
    let level: f64 = level.unwrap_or(10.0);
    assert!(level <= MOST_EXPOSED, "{judged}");
}

#[tokio::test]
async fn unit_of_a_user_is_understood_by_systemd() {
    let user = User::new();
    user.service("install --user --port 11499").await;

    let Some(verified) = analyze(&["--user", "verify", "--man=no"], &user.path(UNIT)).await else {
        return skip("the unit of a user", "systemd-analyze is not installed");
    };

    assert_eq!((verified.code, verified.stderr.as_str()), (Some(0), ""));
}

/// Has systemd's own program judge a unit; `None`: it is not here.
async fn analyze(args: &[&str], unit: &Path) -> Option<Ended> {
    let dir = unit.parent().expect("it is in a directory");
    let mut command = Command::new("systemd-analyze");
    command
        .args(args)
        .arg(unit)
        .env("XDG_RUNTIME_DIR", dir)
        .env("SYSTEMD_LOG_LEVEL", "warning");
    let is_here = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .await;
    is_here.ok()?;
    Some(finish(command).await)
}
