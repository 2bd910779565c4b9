//! Which machine answers: the balancer's own decisions in a simulated fleet of unequal machines.
//!
//! Read in this order: [`world`] (machines, models, requests), [`runtime`] (what a machine does),
//! [`chooser`] (who decides), [`simulation`] (one run). No clock, no socket: the figures are the
//! same on every machine.

use ollama_coordinator::balancer::policy::Policy;

mod chooser;
mod runtime;
mod simulation;
mod world;

use chooser::Way;
use simulation::Figures;

use crate::plan::Scale;

/// How many requests one run has.
const REQUESTS: usize = 22_000;
const LOADS: [u32; 3] = [30, 60, 85];
const SEEDS: [u64; 3] = [1, 2, 3];

/// What is compared; all others with the first one.
const WAYS: [(Way, &str); 6] = [
    (Way::BlindTurns, "blind round robin"),
    (Way::BlindRandom, "blind random"),
    (Way::Balancer(Policy::RoundRobin), "`round-robin`"),
    (Way::Balancer(Policy::Weighted), "`weighted`"),
    (Way::Balancer(Policy::PrefixAffinity), "`prefix-affinity`"),
    (Way::Balancer(Policy::LeastLoaded), "`least-loaded`"),
];

/// Runs every way at every load and returns the table: medians over the seeds, a quick run has one.
pub(crate) fn measure(scale: Scale) -> String {
    let seeds = if scale.is_quick() {
        &SEEDS[..1]
    } else {
        &SEEDS[..]
    };
    let mut table = String::from(
        "| Load | Policy | First token p50 | p95 | p95 against blind round robin | Tokens/s | \
         Cold loads | Refused |\n|---|---|---|---|---|---|---|---|\n",
    );
    for load in LOADS {
        let share = f64::from(load) / 100.0;
        let traces = seeds
            .iter()
            .map(|seed| world::requests(REQUESTS, share, *seed));
        let traces: Vec<_> = traces.collect();
        let figures = std::thread::scope(|scope| {
            let runs = WAYS.map(|(way, _)| {
                let traces = &traces;
                scope.spawn(move || {
                    let seeds = traces.iter().zip(seeds);
                    seeds
                        .map(|(trace, seed)| simulation::run(way, trace, *seed))
                        .collect::<Vec<_>>()
                })
            });
            runs.map(|run| run.join().unwrap_or_default())
        });
        let base = median(&figures[0], |f| f.p95);
        let rows = WAYS.iter().zip(&figures);
        table.extend(rows.map(|((_, name), runs)| row(load, name, runs, base)));
    }
    table
}

fn row(load: u32, name: &str, runs: &[Figures], base: f64) -> String {
    let p95 = median(runs, |f| f.p95);
    format!(
        "| {load} % | {name} | {:.2} s | {p95:.2} s | {:.2} x | {:.0} | {:.0} | {:.2} % |\n",
        median(runs, |f| f.p50),
        p95 / base,
        median(runs, |f| f.tokens_per_second),
        median(runs, |f| f.loads),
        median(runs, |f| f.refused * 100.0),
    )
}

fn median(runs: &[Figures], figure: impl Fn(&Figures) -> f64) -> f64 {
    let mut figures: Vec<f64> = runs.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
