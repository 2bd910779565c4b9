//! Hours in minutes: real agents and a crowd, steady load, and somebody who kills and restarts agents
//! and the coordinator at random. Nothing may grow, nothing be forgotten, nobody be wrongly offline.
//!
//! `OLLAMA_COORDINATOR_SOAK` (seconds), `OLLAMA_COORDINATOR_CROWD` (agents that only send heartbeats)
//! and `OLLAMA_COORDINATOR_SOAK_SEED` set the run; the defaults are those of a quick one.

mod figures;
mod havoc;
mod trend;

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use ollama_simulator::history::Bounds;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::wait_for;

use self::figures::{Figures, Gauges, of_process};
use self::havoc::Havoc;
use crate::support::crowd::{Crowd, Silence};
use crate::support::process::Machine;
use crate::support::site::{Reach, Site};
use crate::support::watch::{Habit, Watch};
use crate::support::{say, setting};

const PAUSE: Duration = Duration::from_millis(20);
/// Of the time, this part comes first and is restless; then the coordinator is left alone, so that
/// what grows can be seen.
const RESTLESS: f64 = 0.5;
/// Of the time without restarts, so many per cent are for caches to fill.
const WARM_UP: usize = 30;
/// Time for connections and threads that nobody uses to be let go.
const LET_GO: Duration = Duration::from_secs(30);
/// More descriptors and threads than before the load, when it is over.
const LEFT_OPEN: u64 = 16;
/// What memory may grow by while it is looked at, as its trend has it.
const GROWTH_KIB: f64 = 8192.0;
/// A lease is 4 s; a coordinator that gets no processor time for a second grants all of them anew,
/// and beside other work that may happen twice.
const BOUNDS: Bounds = Bounds {
    recovery: Duration::from_secs(10),
    notice: Duration::from_secs(15),
    grace: Duration::from_secs(65),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_grows_and_nobody_is_forgotten_under_load_kills_and_restarts() {
    let lasts = Duration::from_secs(setting("OLLAMA_COORDINATOR_SOAK", 14));
    let members = setting("OLLAMA_COORDINATOR_CROWD", 30);
    let seed = setting("OLLAMA_COORDINATOR_SOAK_SEED", rand::random());
    say(&format!(
        "soak of {lasts:?} with a crowd of {members}, seed {seed}"
    ));
    let machine = Machine::new();
    let coordinator = havoc::start(&machine).await;
    let mut watch = Watch::new(machine.api, Duration::from_secs(1).min(lasts / 50));
    let silence = Silence {
        one_in: 300,
        lasts: Duration::from_secs(20),
    };
    let _crowd = Crowd::start(machine.api, members, silence, &watch.recorder);
    let sites = sites(&machine, &watch).await;
    let before = of_process(coordinator.id(), watch.recorder.now());
    ask(&mut watch);

    let mut havoc = Havoc::new(seed, sites, machine, coordinator, watch.recorder.clone());
    havoc.wreak(lasts.mul_f64(RESTLESS)).await;
    let (coordinator, agent) = (havoc.coordinator().id(), havoc.steady_agent());
    let figures = Figures::of(&[coordinator, agent], &watch.recorder);
    havoc.wreak_on_agents(lasts.mul_f64(1.0 - RESTLESS)).await;
    let measured = figures.end().await;
    havoc.settle().await;

    let verdict = watch.end(&BOUNDS).await;
    let measured = ["coordinator", "steady agent"].into_iter().zip(measured);
    let measured: Vec<_> = measured
        .map(|(name, taken)| Growth::of(name, &taken))
        .collect();
    say(HEAD);
    for growth in &measured {
        say(&growth.line);
    }
    say(&format!("{}; {}", havoc.said(), verdict.said));
    verdict.assert_clean(&format!("soak with seed {seed}"));
    for growth in &measured {
        assert!(
            growth.memory_kib < GROWTH_KIB,
            "seed {seed}: it grows: {}",
            growth.line
        );
    }
    let recorder = havoc.recorder();
    let now = async || of_process(coordinator, recorder.now());
    let is_let_go = |now: &Gauges| {
        now.descriptors <= before.descriptors + LEFT_OPEN
            && now.threads <= before.threads + LEFT_OPEN
    };
    let after = wait_for("what was used let go", LET_GO, now, is_let_go).await;
    say(&format!(
        "before the load and when it was over: {} and {} descriptors, {} and {} threads",
        before.descriptors, after.descriptors, before.threads, after.threads
    ));
}

/// Four machines, of which the first is left alone.
async fn sites(machine: &Machine, watch: &Watch) -> Vec<Site> {
    let script = RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(31),
        answer_tokens: NonZeroU32::new(20),
        tokens_per_second: NonZeroU32::new(200),
        ..RuntimeScript::default()
    };
    let kinds = [
        ("steady", Reach::Tunnel),
        ("tunnel-1", Reach::Tunnel),
        ("tunnel-2", Reach::Tunnel),
        ("direct", Reach::Direct),
    ];
    let sites = kinds.map(|(name, reach)| Site::new(machine.api, name, reach, script.clone()));
    let sites = join_all(sites).await;
    for site in &sites {
        site.wait_until_it_works(&watch.recorder).await;
    }
    sites
}

fn ask(watch: &mut Watch) {
    watch.ask(4, Habit::Stream, PAUSE);
    watch.ask(4, Habit::Small, PAUSE);
    watch.ask(2, Habit::Leave, PAUSE);
}

const HEAD: &str = "| Process | Memory, first and last | its trend | Descriptors | Threads |";

/// What a process took when it was warm.
struct Growth {
    /// A line of a document's table.
    line: String,
    /// By how much its memory grew, as its trend has it.
    memory_kib: f64,
}

impl Growth {
    fn of(name: &str, taken: &[Gauges]) -> Self {
        let warm_up = taken.len() * WARM_UP / 100;
        let warm = &taken[warm_up..];
        let (first, last) = (warm[0], warm[warm.len() - 1]);
        let memory = trend::per_minute(warm.iter().map(|gauges| (gauges.at, gauges.memory_kib)));
        let open = trend::per_minute(warm.iter().map(|gauges| (gauges.at, gauges.descriptors)));
        let line = format!(
            "| {name} | {} and {} KiB | {memory:+.0} KiB/min | {} and {}, {open:+.2}/min | {} and {} |",
            first.memory_kib,
            last.memory_kib,
            first.descriptors,
            last.descriptors,
            first.threads,
            last.threads
        );
        Self {
            line,
            memory_kib: memory * last.at.saturating_sub(first.at).as_secs_f64() / 60.0,
        }
    }
}
