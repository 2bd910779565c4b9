//! The coordinator under test, and the other programs beside it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::client::{Connection, request};
use crate::process::Process;

const READY_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// With these, leases outlast the benchmark: nobody goes offline while only costs are measured.
const LONG_LEASES: [&str; 4] = ["--heartbeat-interval", "10m", "--agent-timeout", "24h"];

/// Which leases a coordinator grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leases {
    /// As an operator gets them who sets nothing.
    Default,
    /// So long that they never run out.
    Long,
}

/// A running coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    /// Its meter.
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// From its start until it was ready.
    pub(crate) ready_after: Duration,
}

impl Coordinator {
    /// Starts a coordinator on `data_dir` and waits until it is ready.
    pub(crate) async fn start(data_dir: &Path, leases: Leases) -> anyhow::Result<Self> {
        Self::run(
            Command::new(program("ollama-coordinator")?),
            data_dir,
            leases,
        )
        .await
    }

    /// Like [`Self::start`], run by another program.
    pub(crate) async fn start_under(
        mut runner: Command,
        data_dir: &Path,
        leases: Leases,
    ) -> anyhow::Result<Self> {
        runner.arg(program("ollama-coordinator")?);
        Self::run(runner, data_dir, leases).await
    }

    async fn run(mut command: Command, data_dir: &Path, leases: Leases) -> anyhow::Result<Self> {
        let addr = free_addr()?;
        command
            .args(["--no-local-agent", "--host", "127.0.0.1", "--port"])
            .arg(addr.port().to_string())
            .arg("--data-dir")
            .arg(data_dir)
            .env("HOME", data_dir);
        if leases == Leases::Long {
            command.args(LONG_LEASES);
        }
        let started = Instant::now();
        let process = Process::start(command)?;
        answers(addr, &request("GET", "/readyz", None, "")).await?;
        Ok(Self {
            process,
            addr,
            ready_after: started.elapsed(),
        })
    }

    /// Returns one of the numbers that the readiness shows.
    pub(crate) async fn count(&self, name: &str) -> anyhow::Result<u64> {
        let mut connection = Connection::open(self.addr).await?;
        let answer = connection
            .send(&request("GET", "/readyz", None, ""))
            .await?;
        let readiness: serde_json::Value = serde_json::from_slice(answer.body)?;
        let number = readiness.get(name).and_then(serde_json::Value::as_u64);
        number.with_context(|| format!("readiness shows no number {name}"))
    }

    /// Returns one of the metrics that have no labels.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let mut connection = Connection::open(self.addr).await?;
        let answer = connection
            .send(&request("GET", "/metrics", None, ""))
            .await?;
        let page = std::str::from_utf8(answer.body)?;
        let prefix = format!("ollama_coordinator_{name} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&prefix));
        let value = value.with_context(|| format!("there is no metric {name}"))?;
        Ok(value.trim().parse()?)
    }
}

/// Starts the anchor for small requests.
pub(crate) async fn start_anchor() -> anyhow::Result<(Process, SocketAddr)> {
    let addr = free_addr()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("anchor").arg(addr.to_string());
    let process = Process::start(command)?;
    answers(addr, &request("POST", "/api/agents/x/heartbeat", None, "")).await?;
    Ok((process, addr))
}

/// Starts a real agent with further `flags`.
pub(crate) fn start_agent(
    state_dir: &Path,
    coordinator: SocketAddr,
    runtime: SocketAddr,
    flags: &[&str],
) -> anyhow::Result<Process> {
    let mut command = Command::new(program("ollama-agent")?);
    command
        .args(flags)
        .args(["--coordinator", &format!("http://{coordinator}")])
        .args(["--runtime", &format!("http://{runtime}")])
        .arg("--state-dir")
        .arg(state_dir)
        .env("HOME", state_dir)
        .env("OLLAMA_AGENT_PANEL", "off")
        .env("OLLAMA_AGENT_TRAY", "false");
    Process::start(command)
}

/// Returns a directory of our own on the disk that holds the programs, not in memory.
pub(crate) fn work_dir() -> anyhow::Result<tempfile::TempDir> {
    let programs = std::env::current_exe()?;
    let beside = programs
        .parent()
        .context("the programs lie in no directory")?;
    Ok(tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(beside)?)
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} is missing: run `cargo build --release` first",
        path.display()
    );
    Ok(path)
}

/// Returns an address of this machine at which nobody listens.
pub(crate) fn free_addr() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?)
}

/// Waits until `request` succeeds at `addr`.
pub(crate) async fn answers(addr: SocketAddr, request: &[u8]) -> anyhow::Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        if let Ok(mut connection) = Connection::open(addr).await
            && let Ok(answer) = connection.send(request).await
            && answer.is_success()
        {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{addr} was not ready in time");
        sleep(LOOK_AGAIN).await;
    }
}
