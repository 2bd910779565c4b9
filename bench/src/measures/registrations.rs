//! Registering: durably, one by one, by many clients, and all at once.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;

use crate::anchor::replace_file;
use crate::client::Connection;
use crate::coordinator::Coordinator;
use crate::fleet::registration;
use crate::load::{self, Load};
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::table::{Aim, median, millis, percentile, spread};

/// Registrations, and bare replacements, in turns of so many.
const TURN: u64 = 20;
const TURNS_A_ROUND: u64 = 5;
const CLIENTS: usize = 64;
/// Re-registrations go to this many known agents.
const KNOWN: u64 = 1_000;
/// The session that the re-registrations of one client bring.
const FIRST_RUN: u64 = 1;

/// Re-registers one agent after another with a new session, next to the bare file recipe.
pub(crate) async fn one_client(
    bench: &Bench,
    coordinator: &Coordinator,
    dir: &Path,
) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let size = std::fs::metadata(dir.join("agents.json"))?.len();
    let bytes = vec![b'x'; usize::try_from(size)?];
    let mut connection = Connection::open(coordinator.addr).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..bench.scale.rounds * TURNS_A_ROUND {
        for number in turn * TURN..(turn + 1) * TURN {
            let request = bench
                .fleet
                .registration(number % KNOWN, FIRST_RUN + number / KNOWN);
            let sent = Instant::now();
            let answer = connection.send(&request).await?;
            anyhow::ensure!(answer.is_success(), "registration got {}", answer.status);
            ours.push(sent.elapsed());
        }
        bare.extend(replacements(dir, &bytes)?);
    }
    let ratio = |per_cent| {
        millis(percentile(&ours, per_cent)) / millis(percentile(&bare, per_cent)).max(1e-9)
    };
    show(
        &foreign,
        "durable registration, one client, 1,000 agents",
        format!(
            "{}: {:.2} x at p50, {:.2} x at p99",
            spread(&ours),
            ratio(50),
            ratio(99)
        ),
        format!("bare file recipe, {} KiB: {}", size / 1024, spread(&bare)),
        Aim::AtMost {
            aim: 2.0,
            is: ratio(99),
            unit: " x at p99",
        },
    );
    Ok(())
}

fn replacements(dir: &Path, bytes: &[u8]) -> anyhow::Result<Vec<Duration>> {
    let replace = |_| {
        let started = Instant::now();
        replace_file(dir, bytes).context("the bare file recipe failed")?;
        Ok(started.elapsed())
    };
    (0..TURN).map(replace).collect()
}

/// Re-registers known agents with new sessions over many connections.
pub(crate) async fn many_clients(bench: &Bench, coordinator: &Coordinator) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let runtime = bench.fleet.runtime();
    let (mut rates, mut costs, mut latencies) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.scale.rounds {
        let load = Load::full(CLIENTS, bench.scale.window);
        let run = move |number| ((round + 1) << 32) + number / KNOWN;
        let before = coordinator.process.cpu();
        let register = move |number| registration(runtime, number % KNOWN, run(number));
        let outcome = load::run(coordinator.addr, load, register)
            .await?
            .checked()?;
        costs.push(outcome.micros_each(coordinator.process.cpu().saturating_sub(before)));
        rates.push(outcome.per_second());
        latencies.extend(outcome.latencies);
    }
    // Back to the session that heartbeats speak for.
    bench.fleet.register(coordinator, 0, KNOWN).await?;
    let is = median(rates);
    show(
        &foreign,
        "durable registrations per second, 64 clients, 1,000 agents",
        format!(
            "{is:.0}, {:.0} µs CPU each, {}",
            median(costs),
            spread(&latencies)
        ),
        String::new(),
        Aim::AtLeast {
            aim: 15_000.0,
            is,
            unit: "/s",
        },
    );
    Ok(())
}

/// Lets new agents register all at once, connecting included; returns how many are known then.
pub(crate) async fn bursts(
    bench: &Bench,
    coordinator: &Coordinator,
    mut known: u64,
) -> anyhow::Result<u64> {
    for (at_once, times) in [(1, 20), (100, 4), (1_000, 3)] {
        let foreign = Foreign::watch();
        let mut latencies = Vec::new();
        for _ in 0..times {
            latencies.extend(burst(bench, coordinator, known..known + at_once).await?);
            known += at_once;
        }
        show(
            &foreign,
            &format!("registration, {at_once} new agents at once, {known} known after it"),
            spread(&latencies),
            String::new(),
            Aim::None,
        );
    }
    bench.fleet.settle().await;
    Ok(known)
}

async fn burst(
    bench: &Bench,
    coordinator: &Coordinator,
    agents: std::ops::Range<u64>,
) -> anyhow::Result<Vec<Duration>> {
    let addr = coordinator.addr;
    let mut registering = tokio::task::JoinSet::new();
    for agent in agents {
        let request = bench.fleet.registration(agent, 0);
        registering.spawn(async move {
            let started = Instant::now();
            let mut connection = Connection::open(addr).await?;
            let answer = connection.send(&request).await?;
            anyhow::ensure!(answer.is_success(), "registration got {}", answer.status);
            Ok(started.elapsed())
        });
    }
    registering.join_all().await.into_iter().collect()
}
