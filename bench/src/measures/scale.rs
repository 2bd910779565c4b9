//! What grows with the fleet: one coordinator with a thousand agents, ten thousand, and so on.
//!
//! Everything is told per agent or per call, so that a figure which grows from column to column
//! says that something costs more than its share.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::heartbeats::anchor_micros;
use crate::client::{Connection, request};
use crate::coordinator::{Coordinator, Leases, work_dir};
use crate::fleet::{heartbeat, heartbeat_with_load, tunnelled};
use crate::load::{self, Load, Outcome, count};
use crate::machine::Foreign;
use crate::plan::Bench;
use crate::table::{median, millis, percentile};

const SMALLEST: u64 = 1_000;
/// Many, because a commit writes the whole registry for all that wait for it.
const REGISTERING: usize = 1_000;
const REGISTERED_WITHIN: Duration = Duration::from_mins(30);
const BEATING: usize = 64;
/// Heartbeats beside a viewer: ten connections, each so often.
const BEATERS: usize = 10;
const BEAT_EVERY: Duration = Duration::from_millis(10);
const LISTS: usize = 5;
const MIB: f64 = 1_048_576.0;
/// Heartbeats per second of a whole fleet, as granted by default: one a second for each agent, until
/// there are as many as this; no agent's interval is longer than a minute.
const BEATS: f64 = 2_000.0;
const LONGEST_INTERVAL: f64 = 60.0;

const FIGURES: [&str; 12] = [
    "registered, per second, all of them new",
    "CPU of that, µs each",
    "written for that, kB each",
    "memory, B each",
    "registry file, MiB",
    "heartbeat, µs CPU (times an axum no-op)",
    "heartbeats as often as granted, % of a core (calculated)",
    "list, µs CPU per agent",
    "snapshot for a viewer, µs CPU per agent",
    "1,000 heartbeats/s with load for a viewer, ms CPU per s more",
    "kill -9 to ready, µs each",
    "all again with new sessions, per second (p99 of one, ms)",
];

/// Returns a table with a column for each size up to the largest.
pub(crate) async fn measure(bench: &mut Bench) -> anyhow::Result<String> {
    let mut sizes = Vec::new();
    let mut agents = SMALLEST;
    while agents <= bench.scale.largest {
        sizes.push(agents);
        agents *= 10;
    }
    let mut columns = Vec::new();
    let foreign = Foreign::watch();
    for &agents in &sizes {
        columns.push(column(bench, agents).await?);
    }
    let sizes: Vec<_> = sizes.iter().map(u64::to_string).collect();
    let rule = vec!["---".to_owned(); columns.len()];
    let mut lines = vec![line("With so many agents", &sizes), line("---", &rule)];
    for (row, figure) in FIGURES.iter().enumerate() {
        let cells: Vec<_> = columns.iter().map(|column| column[row].clone()).collect();
        lines.push(line(figure, &cells));
    }
    if let Some(load) = foreign.processors() {
        lines.push(format!("\nForeign CPUs: {load:.1}"));
    }
    Ok(lines.join("\n"))
}

fn line(head: &str, cells: &[String]) -> String {
    format!("| {head} | {} |", cells.join(" | "))
}

/// Measures a fleet of one size, from nothing.
async fn column(bench: &mut Bench, agents: u64) -> anyhow::Result<[String; FIGURES.len()]> {
    let dir = work_dir()?;
    let coordinator = Coordinator::start(dir.path(), Leases::Long).await?;
    let empty = coordinator.process.memory();

    let written = coordinator.process.written();
    let (new, cpu) = register(&coordinator, agents, 0).await?;
    let written = coordinator.process.written().saturating_sub(written);
    let memory = coordinator.process.memory().saturating_sub(empty);
    let file = std::fs::metadata(dir.path().join("agents.json"))?.len();

    let (beat, times) = beats(bench, &coordinator, agents).await?;
    let list = calls(&coordinator, "/api/agents").await?;
    let snapshot = calls(&coordinator, "/api/events/snapshot").await?;
    let viewer = viewer(bench, &coordinator, agents).await?;

    coordinator.process.kill().await?;
    let coordinator = restarted(dir.path(), agents).await?;
    let ready = coordinator.ready_after;
    let (again, _) = register(&coordinator, agents, 1).await?;
    coordinator.process.stop().await?;

    let each = count(agents);
    let interval = (each / BEATS).clamp(1.0, LONGEST_INTERVAL);
    Ok([
        format!("{:.0}", new.per_second()),
        format!("{:.0}", new.micros_each(cpu)),
        format!("{:.1}", count(written) / 1e3 / each),
        format!("{:.0}", count(memory) / each),
        format!("{:.1}", count(file) / MIB),
        format!("{beat:.1} ({times:.2})"),
        format!("{:.1}", (each / interval) * beat / 1e4),
        format!("{:.2}", list / each),
        format!("{:.2}", snapshot / each),
        format!("{viewer:.1}"),
        format!("{:.1}", millis(ready) * 1e3 / each),
        format!(
            "{:.0} ({:.0})",
            again.per_second(),
            millis(percentile(&again.latencies, 99))
        ),
    ])
}

/// Registers all agents at once, as processes with the number `run`.
async fn register(
    coordinator: &Coordinator,
    agents: u64,
    run: u64,
) -> anyhow::Result<(Outcome, Duration)> {
    let load = Load {
        most: agents,
        ..Load::full(REGISTERING, REGISTERED_WITHIN)
    };
    let before = coordinator.process.cpu();
    let outcome = load::run(coordinator.addr, load, move |agent| tunnelled(agent, run));
    let outcome = outcome.await?.checked()?;
    anyhow::ensure!(
        outcome.succeeded == agents,
        "only {} of {agents} registered in time",
        outcome.succeeded
    );
    Ok((outcome, coordinator.process.cpu().saturating_sub(before)))
}

/// Returns what a heartbeat costs, in microseconds and as a multiple of the anchor.
async fn beats(
    bench: &mut Bench,
    coordinator: &Coordinator,
    agents: u64,
) -> anyhow::Result<(f64, f64)> {
    let (mut costs, mut times) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        let anchor = anchor_micros(bench).await?;
        let seq = bench.fresh_seq();
        let load = Load::full(BEATING, bench.scale.window);
        let before = coordinator.process.cpu();
        let beat = move |number| heartbeat(number % agents, 0, seq + number);
        let outcome = load::run(coordinator.addr, load, beat).await?.checked()?;
        let cost = outcome.micros_each(coordinator.process.cpu().saturating_sub(before));
        times.push(cost / anchor);
        costs.push(cost);
    }
    Ok((median(costs), median(times)))
}

/// Returns what one call costs the coordinator, in microseconds.
async fn calls(coordinator: &Coordinator, path: &str) -> anyhow::Result<f64> {
    let mut connection = Connection::open(coordinator.addr).await?;
    let ask = request("GET", path, None, "");
    let before = coordinator.process.cpu();
    for _ in 0..LISTS {
        let answer = connection.send(&ask).await?;
        anyhow::ensure!(answer.is_success(), "{path} got {}", answer.status);
    }
    let cost = coordinator.process.cpu().saturating_sub(before);
    Ok(millis(cost) * 1e3 / count(LISTS as u64))
}

/// Returns how much more processor time a second of heartbeats costs while one viewer watches, in
/// milliseconds.
async fn viewer(bench: &mut Bench, coordinator: &Coordinator, agents: u64) -> anyhow::Result<f64> {
    let lasting = bench.scale.hold;
    let load = Load {
        pause: BEAT_EVERY,
        ..Load::full(BEATERS, lasting)
    };
    let mut costs = Vec::new();
    for watched in [false, true] {
        let seq = bench.fresh_seq();
        let mut reading = tokio::task::JoinSet::new();
        if watched {
            let mut connection = Connection::open(coordinator.addr).await?;
            reading.spawn(async move {
                let ask = request("GET", "/api/events?brief=true", None, "");
                connection.read_on(&ask).await
            });
        }
        // The snapshot is not what is asked for here.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, started) = (coordinator.process.cpu(), Instant::now());
        let beat = move |number| heartbeat_with_load(number % agents, 0, seq + number);
        load::run(coordinator.addr, load, beat).await?.checked()?;
        let cost = coordinator.process.cpu().saturating_sub(before);
        costs.push(millis(cost) / started.elapsed().as_secs_f64());
    }
    Ok(costs[1] - costs[0])
}

async fn restarted(dir: &Path, agents: u64) -> anyhow::Result<Coordinator> {
    let coordinator = Coordinator::start(dir, Leases::Long).await?;
    let known = coordinator.count("agents").await?;
    anyhow::ensure!(known == agents, "{known} of {agents} agents came back");
    Ok(coordinator)
}
