//! The real binary, as a process that can be killed, paused and refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;

use http::Method;
use ollama_simulator::wait::{PATIENCE, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::api::{Api, request};
use super::port::ReservedPort;

/// A home directory and a port on which coordinators run one after another.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) api: Api,
    home: TempDir,
    port: ReservedPort,
}

impl Machine {
    pub(crate) fn new() -> Self {
        Self::listening(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Makes a machine whose coordinators listen at `addr`; they are called over loopback if they
    /// listen everywhere.
    pub(crate) fn listening(addr: SocketAddr) -> Self {
        let port = ReservedPort::on(addr);
        let mut called = port.addr();
        match called.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => called.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => called.set_ip(Ipv6Addr::LOCALHOST.into()),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
        Self {
            api: Api::new(called),
            home: tempfile::tempdir().expect("there is room for a directory"),
            port,
        }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.home().join(".ollama-coordinator")
    }

    pub(crate) fn agents_file(&self) -> PathBuf {
        self.data_dir().join("agents.json")
    }

    /// Returns the command that serves here; nothing of the test's own environment reaches it.
    pub(crate) fn command(&self) -> Command {
        self.command_on(self.port.addr().port())
    }

    /// Returns the command that serves on another port; 0 takes any.
    pub(crate) fn command_on(&self, port: u16) -> Command {
        let mut command = binary(self.home());
        command
            .arg("--no-local-agent")
            .arg(format!("--host={}", self.port.addr().ip()))
            .arg(format!("--port={port}"));
        command
    }

    /// Starts a coordinator and waits until it is ready.
    pub(crate) async fn start(&self) -> CoordinatorProcess {
        self.start_with(|_command| {}).await
    }

    /// Starts a coordinator with a changed command and waits until it is ready.
    pub(crate) async fn start_with(&self, change: impl FnOnce(&mut Command)) -> CoordinatorProcess {
        let log = self.home().join("stderr.log");
        let stderr = std::fs::File::create(&log).expect("the home is writable");
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(stderr);
        change(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        let is_ready = async || {
            let answer = self.api.try_send(request(Method::GET, "/readyz", "")).await;
            answer.is_ok_and(|answer| answer.status == 200)
        };
        tokio::select! {
            ended = child.wait() => {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                assert!(ended.is_err(), "it ended instead of serving: {ended:?}: {said}");
            }
            _ = wait_for("ready", PATIENCE, is_ready, |is_ready| *is_ready) => {}
        }
        CoordinatorProcess { child }
    }

    /// Runs a coordinator that is expected to end by itself.
    pub(crate) async fn run_to_its_end(&self) -> Ended {
        finish(self.command()).await
    }
}

/// Returns a command of the binary, with no environment but the home.
pub(crate) fn binary(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ollama-coordinator"));
    command
        .env_clear()
        .env("HOME", home)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// How a process ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) async fn finish(mut command: Command) -> Ended {
    let output = timeout(PATIENCE, command.output()).await;
    let Output {
        status,
        stdout,
        stderr,
    } = output
        .expect("it ends by itself")
        .expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("it writes text");
    Ended {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// A running coordinator; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct CoordinatorProcess {
    child: Child,
}

impl CoordinatorProcess {
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("process ids are small");
        let pid = Pid::from_raw(pid).expect("it is not 0");
        kill_process(pid, signal).expect("it is our child");
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it is our child");
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    pub(crate) async fn stop(self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended(PATIENCE).await
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self, within: Duration) -> ExitStatus {
        let ended = timeout(within, self.child.wait()).await;
        ended.expect("it ends in time").expect("it is our child")
    }
}
