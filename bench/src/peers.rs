//! The programs that are measured side by side: the coordinator, its peers, and no proxy at all.
//! Each is a process in front of the same two upstreams.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Connection, request};
use crate::coordinator::{Coordinator, Leases, answers, free_addr};
use crate::machine::Halves;
use crate::process::Process;
use crate::upstream::chat;

mod config;

const READY_WITHIN: Duration = Duration::from_mins(2);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const OLLAMA: &str = "/api/chat";
const OPENAI: &str = "/v1/chat/completions";
/// Where `bench/peers.sh` puts what it installs.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.cache/bench");
/// Where Debian has what only root usually starts.
const SYSTEM_PROGRAMS: &str = "/usr/sbin";

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// The upstream itself, on the processor that the others get.
    Direct,
    Nginx,
    Haproxy,
    Coordinator,
    VllmRouter,
    SglangRouter,
    Litellm,
}

/// All of them, in the order of the tables.
pub(crate) const PEERS: [Peer; 7] = [
    Peer::Direct,
    Peer::Nginx,
    Peer::Haproxy,
    Peer::Coordinator,
    Peer::VllmRouter,
    Peer::SglangRouter,
    Peer::Litellm,
];

impl Peer {
    /// Returns its name and version as the tables show them.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Coordinator => "**coordinator**",
            Self::VllmRouter => "vllm-router 0.1.17",
            Self::SglangRouter => "sglang-router 0.3.2",
            Self::Litellm => "LiteLLM 1.106.2",
        }
    }

    /// Returns whether it takes so long for everything that measuring it once has to do.
    pub(crate) fn is_slow(self) -> bool {
        self == Self::Litellm
    }

    /// Returns the route that it is asked for: two speak only OpenAI's API.
    fn path(self) -> &'static str {
        match self {
            Self::Direct | Self::Nginx | Self::Haproxy | Self::Coordinator | Self::VllmRouter => {
                OLLAMA
            }
            Self::SglangRouter | Self::Litellm => OPENAI,
        }
    }

    /// Returns how it is started in front of `upstreams`, with what it reads in `dir`.
    fn command(
        self,
        dir: &Path,
        addr: SocketAddr,
        upstreams: &[SocketAddr],
    ) -> anyhow::Result<Command> {
        let urls = upstreams
            .iter()
            .map(|upstream| format!("http://{upstream}"));
        let mut command = match self {
            Self::Direct => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("upstream").arg(addr.to_string());
                command
            }
            Self::Nginx => {
                let mut command = Command::new(system_program("nginx")?);
                fs::write(dir.join("nginx.conf"), config::nginx(addr, upstreams))?;
                command.arg("-p").arg(dir).args(["-c", "nginx.conf"]);
                command
            }
            Self::Haproxy => {
                let mut command = Command::new(system_program("haproxy")?);
                fs::write(dir.join("haproxy.cfg"), config::haproxy(addr, upstreams))?;
                command.args(["-db", "-f"]).arg(dir.join("haproxy.cfg"));
                command
            }
            Self::Coordinator => anyhow::bail!("the coordinator is started by itself"),
            Self::VllmRouter => {
                let mut command = Command::new(installed("vllm-router/bin/vllm-router")?);
                command.args(config::router(addr, free_addr()?)).args(urls);
                command
            }
            Self::SglangRouter => {
                let mut command = Command::new(installed("sglang-router/bin/sglang-router")?);
                // By default it refuses more than some hundred requests at once.
                command.args(["launch", "--max-concurrent-requests", "8192"]);
                command.args(config::router(addr, free_addr()?)).args(urls);
                command
            }
            Self::Litellm => {
                let mut command = Command::new(installed("litellm/bin/litellm")?);
                let path = dir.join("litellm.json");
                fs::write(&path, config::litellm(upstreams).to_string())?;
                command.arg("--config").arg(path);
                command.args(["--num_workers", "1", "--telemetry", "False", "--host"]);
                command.arg(addr.ip().to_string()).arg("--port");
                command.arg(addr.port().to_string()).envs(config::LITELLM);
                command
            }
        };
        command.current_dir(dir).env("HOME", dir);
        Ok(command)
    }
}

/// A running program that takes chat requests.
#[derive(Debug)]
pub(crate) struct Target {
    /// Which.
    pub(crate) peer: Peer,
    /// Its meter.
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// The route it is asked for.
    pub(crate) path: &'static str,
}

impl Target {
    /// Starts `peer` on the tested processor and waits until it answers.
    pub(crate) async fn start(
        peer: Peer,
        dir: &Path,
        halves: &Halves,
        upstreams: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let dir = dir.join(format!("{peer:?}"));
        fs::create_dir(&dir)?;
        halves.to_tested()?;
        let started = if peer == Peer::Coordinator {
            start_coordinator(&dir, upstreams).await
        } else {
            let addr = free_addr()?;
            peer.command(&dir, addr, upstreams)
                .and_then(|command| start_logged(command, &dir))
                .map(|process| (process, addr))
        };
        halves.to_load()?;
        let (process, addr) = started?;
        let mut target = Self {
            peer,
            process,
            addr,
            path: peer.path(),
        };
        let ready = target.becomes_ready().await;
        ready.with_context(|| format!("it said last: {}", last_line(&dir)))?;
        Ok(target)
    }

    /// Returns the bytes of a small chat request.
    pub(crate) fn small_request(&self) -> Vec<u8> {
        request("POST", self.path, None, &chat(None))
    }

    async fn becomes_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let chat = self.small_request();
        loop {
            let answered = timeout(ANSWER_WITHIN, async {
                let mut connection = Connection::open(self.addr).await?;
                let answer = connection.send(&chat).await?;
                let body = String::from_utf8_lossy(answer.body).into_owned();
                std::io::Result::Ok((answer.is_success(), body))
            });
            let last = match answered.await {
                Ok(Ok((true, _))) => return Ok(()),
                Ok(Ok((false, body))) => body,
                Ok(Err(refused)) => refused.to_string(),
                Err(elapsed) => elapsed.to_string(),
            };
            anyhow::ensure!(!self.process.has_ended(), "it ended at once");
            anyhow::ensure!(Instant::now() < deadline, "it was not ready: {last}");
            sleep(LOOK_AGAIN).await;
        }
    }
}

/// Starts the upstreams on the processor where the load is.
pub(crate) async fn start_upstreams() -> anyhow::Result<(Process, [SocketAddr; 2])> {
    let addrs = [free_addr()?, free_addr()?];
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("upstream")
        .args(addrs.map(|addr| addr.to_string()));
    let process = Process::start(command)?;
    for addr in addrs {
        answers(addr, &request("GET", "/api/version", None, "")).await?;
    }
    Ok((process, addrs))
}

/// Starts a coordinator that knows the upstreams as two machines without a limit.
async fn start_coordinator(
    dir: &Path,
    upstreams: &[SocketAddr],
) -> anyhow::Result<(Process, SocketAddr)> {
    let coordinator = Coordinator::start(dir, Leases::Long).await?;
    introduce(coordinator.addr, upstreams).await?;
    Ok((coordinator.process, coordinator.addr))
}

/// Tells a coordinator of the upstreams, as machines without a limit.
pub(crate) async fn introduce(
    coordinator: SocketAddr,
    upstreams: &[SocketAddr],
) -> anyhow::Result<()> {
    let mut connection = Connection::open(coordinator).await?;
    for upstream in upstreams {
        let (ip, port) = (upstream.ip(), upstream.port());
        let body =
            format!(r#"{{"machine_name":"upstream-{port}","ip_address":"{ip}","port":{port}}}"#);
        let registration = request("POST", "/api/agents", None, &body);
        let answer = connection.send(&registration).await?;
        anyhow::ensure!(answer.is_success(), "an upstream was not registered");
        let registered: serde_json::Value = serde_json::from_slice(answer.body)?;
        let id = registered.get("id").and_then(serde_json::Value::as_str);
        let path = format!("/api/agents/{}", id.context("the agent got no id")?);
        let unlimited = request("PATCH", &path, None, r#"{"capacity":10000}"#);
        let changed = connection.send(&unlimited).await?;
        anyhow::ensure!(changed.is_success(), "the capacity was not set");
    }
    Ok(())
}

fn start_logged(command: Command, dir: &Path) -> anyhow::Result<Process> {
    Process::start_logged(command, &File::create(log_of(dir))?)
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("said")
}

/// Returns the last line that a program said which is more than decoration.
fn last_line(dir: &Path) -> String {
    let text = fs::read(log_of(dir)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let said = |line: &&str| line.chars().any(char::is_alphanumeric);
    text.lines()
        .rev()
        .find(said)
        .unwrap_or("nothing")
        .to_owned()
}

fn system_program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs = std::env::split_paths(&path).chain([PathBuf::from(SYSTEM_PROGRAMS)]);
    let found = dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()));
    found.context("it is not installed; bench/peers.sh gets it")
}

fn installed(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(INSTALLED).join(name);
    anyhow::ensure!(
        path.is_file(),
        "it is not installed; bench/peers.sh gets it"
    );
    Ok(path)
}
