//! Instructions of each hot path, which hardly depend on what else the machine does: they show a
//! change for the worse that times would hide.
//!
//! The coordinator runs under `valgrind --tool=callgrind`, which counts what it does in user space.
//! What is expected is written down in `instructions.txt`, for builds of the release profile.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::client::{Connection, request};
use crate::coordinator::{Coordinator, Leases, work_dir};
use crate::fleet::{heartbeat, heartbeat_with_load, tunnelled};
use crate::load::count;
use crate::peers::{introduce, start_upstreams};
use crate::upstream::chat;

const AGENTS: u64 = 100;
const CHUNKS: u64 = 200;
const CHUNK_EVERY: Duration = Duration::from_millis(2);
const ROUTABLE_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Timers that run meanwhile, and how many waits happen to coincide, move the figures by so much.
const TOLERATED: f64 = 1.1;

type Figures = BTreeMap<String, u64>;

/// Counts, and compares with what is written down; or writes that down when `bless` is set.
///
/// # Errors
/// A figure is more than a tenth above what is written down, or one is missing there.
pub(crate) async fn measure(bless: bool) -> anyhow::Result<String> {
    let figures = count_all().await?;
    let written = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt");
    if bless {
        let lines = figures
            .iter()
            .map(|(path, each)| format!("{each} {path}\n"));
        fs::write(&written, lines.collect::<String>())?;
    }
    let expected = read(&written)?;
    let mut lines = vec!["| Hot path | Instructions | Expected | |\n|---|---|---|---|".to_owned()];
    let mut worse = Vec::new();
    for (path, &each) in &figures {
        let expected = expected.get(path).copied().unwrap_or(0);
        let ratio = count(each) / count(expected.max(1));
        lines.push(format!("| {path} | {each} | {expected} | {ratio:.2} x |"));
        if ratio > TOLERATED {
            worse.push(path.as_str());
        }
    }
    let table = lines.join("\n");
    let worse = worse.join(", ");
    anyhow::ensure!(
        worse.is_empty(),
        "{table}\n\nMore instructions than expected: {worse}. If that has to be, run it with --bless"
    );
    Ok(table)
}

fn read(path: &Path) -> anyhow::Result<Figures> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| {
        let (each, path) = line.split_once(' ').context("a line has no number")?;
        Ok((path.to_owned(), each.parse()?))
    });
    lines.collect()
}

async fn count_all() -> anyhow::Result<Figures> {
    let dir = work_dir()?;
    let (_upstreams, addrs) = start_upstreams().await?;
    let calls = dir.path().join("calls");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", calls.display()));
    let coordinator = Coordinator::start_under(valgrind, dir.path(), Leases::Long).await?;
    introduce(coordinator.addr, &addrs[..1]).await?;
    let mut counter = Counter {
        connection: Connection::open(coordinator.addr).await?,
        pid: coordinator.process.pid(),
        calls,
        dumps: 0,
    };
    counter.becomes_routable().await?;

    let mut figures = Figures::new();
    let mut put = |path: &str, each| figures.insert(path.to_owned(), each);
    let list = |_| request("GET", "/api/agents", None, "");
    let small = |_| request("POST", "/api/chat", None, &chat(None));
    let stream = |_| {
        request(
            "POST",
            "/api/chat",
            None,
            &chat(Some((CHUNKS, CHUNK_EVERY))),
        )
    };
    let again = |number| tunnelled(number % AGENTS, 1 + number / AGENTS);
    let beat = |number| heartbeat(number % AGENTS, 0, 1 + number);
    let told = |number| heartbeat_with_load(number % AGENTS, 0, 10_000 + number);

    put(
        "registration of a new agent",
        counter.each(AGENTS, |agent| tunnelled(agent, 0)).await?,
    );
    put("heartbeat", counter.each(2_000, beat).await?);
    put("heartbeat with load", counter.each(2_000, told).await?);
    put("list of 100 agents", counter.each(200, list).await?);
    put(
        "small request through the proxy",
        counter.each(1_000, small).await?,
    );
    put("streamed chunk", counter.each(5, stream).await? / CHUNKS);
    put(
        "registration with a new session",
        counter.each(500, again).await?,
    );
    coordinator.process.stop().await?;
    Ok(figures)
}

/// Sends requests one after the other, and has the instructions counted meanwhile.
#[derive(Debug)]
struct Counter {
    connection: Connection,
    pid: u32,
    calls: PathBuf,
    dumps: u32,
}

impl Counter {
    /// Returns how many instructions each of `times` requests takes.
    async fn each(&mut self, times: u64, request: impl Fn(u64) -> Vec<u8>) -> anyhow::Result<u64> {
        self.dump().await?;
        for number in 0..times {
            let answer = self.connection.send(&request(number)).await?;
            anyhow::ensure!(
                answer.is_success(),
                "request {number} got {}",
                answer.status
            );
        }
        Ok(self.dump().await? / times)
    }

    /// Returns the instructions since the last time.
    async fn dump(&mut self) -> anyhow::Result<u64> {
        let mut control = Command::new("callgrind_control");
        control.arg("--dump").arg(self.pid.to_string());
        let said = control
            .output()
            .await
            .context("callgrind_control does not run")?;
        anyhow::ensure!(said.status.success(), "callgrind_control failed");
        self.dumps += 1;
        let path = self.calls.with_extension(self.dumps.to_string());
        let text =
            fs::read_to_string(&path).with_context(|| format!("{} is missing", path.display()))?;
        let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
        Ok(total.context("a dump has no totals")?.trim().parse()?)
    }

    async fn becomes_routable(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + ROUTABLE_WITHIN;
        let ask = request("POST", "/api/chat", None, &chat(None));
        while !self.connection.send(&ask).await?.is_success() {
            anyhow::ensure!(Instant::now() < deadline, "no request is answered");
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}
