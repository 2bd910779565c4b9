//! What a heartbeat costs, next to a request that does nothing, and as the fleet grows.

use std::time::Duration;

use crate::coordinator::Coordinator;
use crate::fleet::heartbeat;
use crate::load::{self, Load, Outcome};
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::process::Process;
use crate::table::{Aim, median};

const CONNECTIONS: usize = 64;

/// What a heartbeat costs in a fleet of some size.
#[derive(Debug)]
pub(crate) struct Cost {
    agents: u64,
    /// Processor time of a heartbeat, as a multiple of the anchor's.
    of_anchor: f64,
    foreign: Foreign,
}

/// Measures heartbeats of `agents` known agents and the anchor in turns.
pub(crate) async fn measure(
    bench: &mut Bench,
    coordinator: &Coordinator,
    agents: u64,
) -> anyhow::Result<Cost> {
    let foreign = Foreign::watch();
    let (mut anchors, mut costs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        let anchor = anchor_micros(bench).await?;
        let load = Load::full(CONNECTIONS, bench.scale.window);
        let seq = bench.fresh_seq();
        let beat = move |number| heartbeat(number % agents, 0, seq + number);
        let before = coordinator.process.cpu();
        let outcome = load::run(coordinator.addr, load, beat).await?.checked()?;
        let cost = micros(&coordinator.process, before, &outcome);
        ratios.push(cost / anchor);
        costs.push(cost);
        anchors.push(anchor);
    }
    let of_anchor = median(ratios);
    let (cost, anchor) = (median(costs), median(anchors));
    let aim = Aim::AtLeast {
        aim: 60.0,
        is: 100.0 / of_anchor,
        unit: " %",
    };
    show(
        &foreign,
        &format!("heartbeats per CPU second, {agents} agents"),
        format!(
            "{:.0} ({cost:.1} µs each): {:.0} % of the anchor",
            1e6 / cost,
            100.0 / of_anchor
        ),
        format!("axum no-op {:.0} ({anchor:.1} µs)", 1e6 / anchor),
        if agents == 10_000 { aim } else { Aim::None },
    );
    Ok(Cost {
        agents,
        of_anchor,
        foreign,
    })
}

/// Measures what a request costs the anchor, in microseconds.
pub(crate) async fn anchor_micros(bench: &Bench) -> anyhow::Result<f64> {
    let load = Load::full(CONNECTIONS, bench.scale.window);
    let before = bench.anchor.cpu();
    let beat = |number| heartbeat(number % 10_000, 0, number);
    let outcome = load::run(bench.anchor_addr, load, beat).await?.checked()?;
    Ok(micros(&bench.anchor, before, &outcome))
}

/// Shows how much more a heartbeat costs in the larger fleet.
pub(crate) fn growth(few: &Cost, many: &Cost) {
    let growth = (many.of_anchor / few.of_anchor - 1.0) * 100.0;
    show(
        &few.foreign,
        &format!("heartbeat cost, {} to {} agents", few.agents, many.agents),
        format!("{growth:+.0} %"),
        "each next to the anchor".to_owned(),
        Aim::AtMost {
            aim: 20.0,
            is: growth,
            unit: " %",
        },
    );
}

fn micros(process: &Process, before: Duration, outcome: &Outcome) -> f64 {
    outcome.micros_each(process.cpu().saturating_sub(before))
}
