//! What is measured and in which order.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::coordinator::{Coordinator, Leases, start_anchor, work_dir};
use crate::fleet::Fleet;
use crate::machine::{Foreign, wait_for_quiet};
use crate::measures::{agent, cadence, detection, heartbeats, lists, memory, peers};
use crate::measures::{policies, proxy, registrations, restart, scale, tunnel};
use crate::process::Process;
use crate::table::{Aim, HEAD, Row};

const PATIENCE: Duration = Duration::from_secs(10);
/// How long the idle programs are watched beside everything else, at least.
const IDLE_BESIDE: Duration = Duration::from_secs(15);
/// How long they are watched when nothing else is measured.
const IDLE_ALONE: Duration = Duration::from_mins(10);
/// The subjects for which programs are started.
const DRIVEN: [&str; 6] = ["costs", "cadence", "detection", "proxy", "tunnel", "peers"];

/// The subject that is measured only when it is named: it takes many minutes and gigabytes.
const GROWTH: &str = "scale";

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Agents of the largest fleet.
    pub(crate) largest: u64,
    /// How often a figure is measured; the median counts.
    pub(crate) rounds: u64,
    /// How often each program is measured beside its peers; the median counts.
    pub(crate) peer_rounds: u64,
    /// How long one window lasts.
    pub(crate) window: Duration,
    /// How long a fleet is held at the default cadence.
    pub(crate) hold: Duration,
}

impl Scale {
    /// Returns the scale of a whole run, or of a quick one.
    pub(crate) fn new(quick: bool) -> Self {
        if quick {
            return Self {
                largest: 20_000,
                rounds: 2,
                peer_rounds: 1,
                window: Duration::from_millis(500),
                hold: Duration::from_secs(8),
            };
        }
        Self {
            largest: 100_000,
            rounds: 5,
            peer_rounds: 3,
            window: Duration::from_secs(1),
            hold: Duration::from_secs(25),
        }
    }

    /// Returns whether once has to do.
    pub(crate) fn is_quick(&self) -> bool {
        self.peer_rounds == 1
    }
}

/// What all measures share.
#[derive(Debug)]
pub(crate) struct Bench {
    /// How much of everything.
    pub(crate) scale: Scale,
    /// The agents.
    pub(crate) fleet: Fleet,
    /// The anchor for small requests.
    pub(crate) anchor: Process,
    /// Where it listens.
    pub(crate) anchor_addr: SocketAddr,
    used_seqs: u64,
}

impl Bench {
    async fn start(scale: Scale) -> anyhow::Result<Self> {
        let (anchor, anchor_addr) = start_anchor().await?;
        Ok(Self {
            scale,
            fleet: Fleet::start().await?,
            anchor,
            anchor_addr,
            used_seqs: 0,
        })
    }

    /// Returns a number above which no heartbeat has been numbered.
    pub(crate) fn fresh_seq(&mut self) -> u64 {
        self.used_seqs += 1 << 32;
        self.used_seqs
    }
}

/// Shows a row as soon as it is known.
pub(crate) fn show(foreign: &Foreign, measure: &str, result: String, anchor: String, aim: Aim) {
    let row = Row {
        measure: measure.to_owned(),
        result,
        anchor,
        aim,
        foreign: foreign.processors(),
    };
    show_row(&row);
}

/// Like [`show`], for a row whose foreign load was watched elsewhere.
pub(crate) fn show_row(row: &Row) {
    say(&row.to_string());
}

/// Prints what was found.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout();
    // Whoever closed the output does not want the table.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// Measures everything, or the subjects whose name contains `only`; idle programs for `idle_for`.
pub(crate) async fn run(
    scale: Scale,
    only: Option<&str>,
    idle_for: Option<Duration>,
) -> anyhow::Result<()> {
    let wanted = |subject: &str| only.is_none_or(|only| subject.contains(only));
    let started = Instant::now();
    if only == Some(GROWTH) {
        say(&grow(scale).await?);
    } else if DRIVEN.into_iter().any(wanted) {
        drive(scale, wanted, idle_for.unwrap_or(IDLE_BESIDE)).await?;
    } else if wanted("idle") {
        idle(idle_for.unwrap_or(IDLE_ALONE)).await?;
    }
    if wanted("policies") {
        say(&format!("\n{}", policies::measure(scale)));
    }
    say(&format!("\nTook {:.0} s.", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Measures fleets of growing size.
async fn grow(size: Scale) -> anyhow::Result<String> {
    wait_for_quiet(PATIENCE).await;
    scale::measure(&mut Bench::start(size).await?).await
}

/// Measures programs that have nothing to do, and nothing else.
async fn idle(watched_for: Duration) -> anyhow::Result<()> {
    head().await;
    agent::start().await?.finish(watched_for).await
}

/// Begins the table when the machine is quiet.
async fn head() {
    let foreign = wait_for_quiet(PATIENCE).await;
    say(&format!(
        "Foreign load at the start: {foreign:.1} CPUs\n\n{HEAD}"
    ));
}

/// Measures the real programs.
async fn drive(
    scale: Scale,
    wanted: impl Fn(&str) -> bool,
    idle_for: Duration,
) -> anyhow::Result<()> {
    head().await;
    let mut bench = Bench::start(scale).await?;
    let idle = agent::start().await?;
    if wanted("costs") {
        costs(&mut bench).await?;
    }
    if wanted("cadence") {
        cadence::measure(&bench).await?;
    }
    if wanted("detection") {
        detection::measure(&bench).await?;
    }
    if wanted("proxy") {
        proxy::measure(&mut bench).await?;
    }
    if wanted("tunnel") {
        tunnel::measure(scale).await?;
    }
    let mut tables = String::new();
    if wanted("peers") {
        tables = peers::measure(scale).await?;
    }
    idle.finish(idle_for).await?;
    if !tables.is_empty() {
        say(&format!("\n{tables}"));
    }
    Ok(())
}

/// One coordinator, measured again and again while its fleet grows.
async fn costs(bench: &mut Bench) -> anyhow::Result<()> {
    let dir = work_dir()?;
    let coordinator = Coordinator::start(dir.path(), Leases::Long).await?;
    let empty = memory::idle(&coordinator);

    bench.fleet.register(&coordinator, 0, 100).await?;
    let few = heartbeats::measure(bench, &coordinator, 100).await?;
    lists::measure(bench, &coordinator, 100).await?;

    bench.fleet.register(&coordinator, 100, 1_000).await?;
    lists::measure(bench, &coordinator, 1_000).await?;
    registrations::one_client(bench, &coordinator, dir.path()).await?;
    registrations::many_clients(bench, &coordinator).await?;
    let known = registrations::bursts(bench, &coordinator, 1_000).await?;

    bench.fleet.register(&coordinator, known, 10_000).await?;
    memory::per_agent(&coordinator, empty, 10_000);
    heartbeats::measure(bench, &coordinator, 10_000).await?;
    lists::measure(bench, &coordinator, 10_000).await?;
    coordinator.process.stop().await?;
    restart::measure(bench, dir.path(), 10_000).await?;

    let largest = bench.scale.largest;
    let coordinator = Coordinator::start(dir.path(), Leases::Long).await?;
    bench.fleet.settle().await;
    bench.fleet.register(&coordinator, 10_000, largest).await?;
    memory::per_agent(&coordinator, empty, largest);
    let many = heartbeats::measure(bench, &coordinator, largest).await?;
    heartbeats::growth(&few, &many);
    coordinator.process.stop().await?;
    restart::measure(bench, dir.path(), largest).await
}
