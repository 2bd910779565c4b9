//! Many tunnels, and many streams in a few.

use std::time::Duration;

use ollama_simulator::tunnel::{Bearer, SimulatedTunnel};
use tokio::time::sleep;

use super::PATH;
use super::way::Way;
use crate::client::Connection;
use crate::coordinator::{Coordinator, Leases, work_dir};
use crate::fleet::{self, tunnelled};
use crate::load;
use crate::machine::{Foreign, Halves};
use crate::peers::start_upstreams;
use crate::plan::{Scale, show};
use crate::streams::{self, Streams};
use crate::table::Aim;

const IDLE: u64 = 1_000;
const SETTLED: Duration = Duration::from_secs(2);
/// Two rounds of pings.
const WATCHED: Duration = Duration::from_secs(20);
const AGENTS: usize = 10;
const MANY: u32 = 1_000;
const PACE: Duration = Duration::from_millis(20);
const KB: f64 = 1_000.0;

/// Measures what tunnels take in which nothing goes on.
pub(super) async fn idle(halves: &Halves) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let dir = work_dir()?;
    halves.to_tested()?;
    let coordinator = Coordinator::start(dir.path(), Leases::Long).await;
    halves.to_load()?;
    let coordinator = coordinator?;
    let mut connection = Connection::open(coordinator.addr).await?;
    for agent in 0..IDLE {
        let answer = connection.send(&tunnelled(agent, 0)).await?;
        anyhow::ensure!(answer.is_success(), "got {}", answer.status);
    }
    sleep(SETTLED).await;
    let before = coordinator.process.memory();
    let mut tunnels = Vec::new();
    for agent in 0..IDLE {
        let path = format!("/api/agents/{}", fleet::id(agent));
        let (session, secret) = fleet::credentials(agent);
        let opened =
            SimulatedTunnel::open(coordinator.addr, &path, &session, &secret, Bearer::Silent);
        tunnels.push(opened.await?);
    }
    sleep(SETTLED).await;
    let cpu = coordinator.process.cpu();
    sleep(WATCHED).await;
    let cpu = coordinator.process.cpu().saturating_sub(cpu);
    let memory = coordinator.process.memory().saturating_sub(before);
    let up = coordinator.metric("tunnels").await?;
    anyhow::ensure!(up == IDLE, "{up} tunnels are up");
    let each = load::count(memory) / load::count(IDLE) / KB;
    let share = cpu.as_secs_f64() / WATCHED.as_secs_f64() * 100.0;
    show(
        &foreign,
        "tunnel: 1,000 idle ones, memory of the coordinator for each",
        format!("{each:.1} kB; {share:.2} % of a CPU for all"),
        String::new(),
        Aim::AtMost {
            aim: 40.0,
            is: each,
            unit: " kB",
        },
    );
    Ok(())
}

/// Measures many streams in few tunnels.
pub(super) async fn streams(halves: &Halves, scale: Scale) -> anyhow::Result<()> {
    let (_upstreams, addrs) = start_upstreams().await?;
    let runtimes: Vec<_> = addrs.into_iter().cycle().take(AGENTS).collect();
    let way = Way::start(halves, &runtimes, &[]).await?;
    let foreign = Foreign::watch();
    let streams = Streams {
        count: MANY,
        pace: PACE,
        window: scale.window * 2,
    };
    let streamed = streams::run(way.addr(), PATH, streams, &way.processes()).await?;
    anyhow::ensure!(
        streamed.begun == MANY,
        "only {} streams began",
        streamed.begun
    );
    let per_second = load::count(streamed.chunks) / streamed.took.as_secs_f64();
    let each = streamed.cpu.as_secs_f64() * 1e6 / load::count(streamed.chunks.max(1));
    let mib = load::count(way.coordinator().memory()) / 1_048_576.0;
    show(
        &foreign,
        "tunnel: 1,000 streams in 10, chunks/s of 50,000",
        format!("{per_second:.0}; {each:.1} µs each; coordinator {mib:.0} MiB"),
        String::new(),
        Aim::None,
    );
    Ok(())
}
