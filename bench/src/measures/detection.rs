//! How long a killed machine goes unnoticed, at default settings.

use std::net::SocketAddr;
use std::time::Duration;

use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, sleep_until};

use crate::client::{Connection, request};
use crate::coordinator::{Coordinator, Leases, work_dir};
use crate::fleet::{heartbeat, id, registration};
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::table::{Aim, percentile};

/// A minority is killed: a coordinator that loses most of its fleet at once doubts itself first.
const AGENTS: u64 = 60;
const KILLED: u64 = 20;
const BEAT_EVERY: Duration = Duration::from_secs(1);
/// The kills are spread over this time, so that they hit every phase between two heartbeats.
const KILLS_WITHIN: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

/// Kills a third of a small fleet, agent and runtime, one by one, and watches until each is offline.
pub(crate) async fn measure(bench: &Bench) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let dir = work_dir()?;
    let coordinator = Coordinator::start(dir.path(), Leases::Default).await?;
    let addr = coordinator.addr;
    let mut connection = Connection::open(addr).await?;
    let mut runtimes = Vec::new();
    for agent in 0..KILLED {
        let runtime = ScriptedRuntime::start(RuntimeScript::default()).await?;
        let registered = connection
            .send(&registration(runtime.addr(), agent, 0))
            .await?;
        anyhow::ensure!(registered.is_success(), "got {}", registered.status);
        runtimes.push(runtime);
    }
    bench.fleet.register(&coordinator, KILLED, AGENTS).await?;
    let mut runtimes = runtimes.into_iter();
    let start = Instant::now();
    let mut survivors = JoinSet::new();
    let mut victims = JoinSet::new();
    for agent in 0..AGENTS {
        let phase = BEAT_EVERY * u32::try_from(agent * 7 % AGENTS)? / u32::try_from(AGENTS)?;
        let Some(runtime) = runtimes.next() else {
            survivors.spawn(beat(addr, agent, start + phase));
            continue;
        };
        let killed_at = start + BEAT_EVERY * 2 + KILLS_WITHIN * u32::try_from(agent)? / 20;
        victims.spawn(async move {
            tokio::select! {
                died_early = beat(addr, agent, start + phase) => died_early?,
                () = sleep_until(killed_at) => {}
            }
            runtime.stop().await;
            noticed(addr, agent, killed_at).await
        });
    }
    let mut times = Vec::new();
    while let Some(noticed) = victims.join_next().await {
        times.push(noticed??);
    }
    let online = coordinator.count("online").await?;
    let wrong = (AGENTS - KILLED).saturating_sub(online);
    let [p50, p99, max] = [50, 99, 100].map(|at| percentile(&times, at).as_secs_f64());
    show(
        &foreign,
        &format!("a killed machine is offline, {KILLED} kills, defaults"),
        format!("p50 {p50:.2} / p99 {p99:.2} / max {max:.2} s; {wrong} falsely offline"),
        String::new(),
        Aim::AtMost {
            aim: 5.0,
            is: max,
            unit: " s",
        },
    );
    Ok(())
}

/// Sends heartbeats until it is dropped, which is the kill.
async fn beat(addr: SocketAddr, agent: u64, first: Instant) -> anyhow::Result<()> {
    sleep_until(first).await;
    let mut connection = Connection::open(addr).await?;
    let mut ticks = interval(BEAT_EVERY);
    for seq in 1.. {
        ticks.tick().await;
        let answer = connection.send(&heartbeat(agent, 0, seq)).await?;
        anyhow::ensure!(answer.is_success(), "heartbeat got {}", answer.status);
    }
    Ok(())
}

/// Watches an agent until it is offline; returns how long after `killed_at` that was.
async fn noticed(addr: SocketAddr, agent: u64, killed_at: Instant) -> anyhow::Result<Duration> {
    let look = request("GET", &format!("/api/agents/{}", id(agent)), None, "");
    let mut connection = Connection::open(addr).await?;
    loop {
        let answer = connection.send(&look).await?;
        let document: serde_json::Value = serde_json::from_slice(answer.body)?;
        let since = killed_at.elapsed();
        if document
            .get("status")
            .is_some_and(|status| status == "offline")
        {
            return Ok(since);
        }
        anyhow::ensure!(since < NOTICED_WITHIN, "a killed machine was never noticed");
        sleep(LOOK_EVERY).await;
    }
}
