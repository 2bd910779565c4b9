//! Ten thousand agents held at the default cadence.

use std::time::Duration;

use ollama_simulator::fleet::{Fleet, FleetOptions};
use tokio::time::{Instant, sleep};

use crate::coordinator::{Coordinator, Leases, work_dir};
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::table::Aim;

const AGENTS: usize = 10_000;
const REGISTERED_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Holds the fleet, and counts what it costs and who is wrongly taken for dead.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let dir = work_dir()?;
    let coordinator = Coordinator::start(dir.path(), Leases::Default).await?;
    let options = FleetOptions::new(coordinator.addr, bench.fleet.runtime(), AGENTS);
    let fleet = Fleet::start(options).await?;
    let deadline = Instant::now() + REGISTERED_WITHIN;
    while fleet.summary().registered < AGENTS {
        anyhow::ensure!(Instant::now() < deadline, "the fleet did not register");
        sleep(LOOK_EVERY).await;
    }
    bench.fleet.settle().await;

    let foreign = Foreign::watch();
    let (before, cpu, started) = (fleet.summary(), coordinator.process.cpu(), Instant::now());
    let kept_before = coordinator.metric("missing_heartbeats_total").await?;
    let mut most_offline = 0;
    while started.elapsed() < bench.scale.hold {
        let online = coordinator.count("online").await?;
        most_offline = most_offline.max((AGENTS as u64).saturating_sub(online));
        sleep(LOOK_EVERY).await;
    }
    let kept = coordinator.metric("missing_heartbeats_total").await? - kept_before;
    let took = started.elapsed();
    let cpu = coordinator.process.cpu().saturating_sub(cpu);
    let after = fleet.kill().await;

    let share = 100.0 * cpu.as_secs_f64() / took.as_secs_f64();
    let beats = after.heartbeats_ok - before.heartbeats_ok;
    let failed = after.heartbeats_failed - before.heartbeats_failed;
    let forgotten = after.unknown_agent - before.unknown_agent;
    show(
        &foreign,
        &format!(
            "10,000 agents at the default cadence, {:.0} s",
            took.as_secs_f64()
        ),
        format!(
            "{share:.1} % of a core; {beats} heartbeats ok, {failed} failed, {forgotten} unknown; \
             at most {most_offline} falsely offline, {kept} kept by their runtimes"
        ),
        String::new(),
        Aim::AtMost {
            aim: 10.0,
            is: share,
            unit: " % of a core",
        },
    );
    show(
        &foreign,
        "heartbeat latency at that cadence",
        format!(
            "p50 {:.2} / p99 {:.2} / max {:.0} ms",
            in_millis(after.heartbeat_latency.p50_us),
            in_millis(after.heartbeat_latency.p99_us),
            in_millis(after.heartbeat_latency.max_us),
        ),
        String::new(),
        Aim::None,
    );
    Ok(())
}

fn in_millis(micros: u64) -> f64 {
    crate::load::count(micros) / 1e3
}
