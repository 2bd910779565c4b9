//! The tunnel beside a direct link, in turns, in the same run: what it costs at both ends together,
//! what it adds, and what it keeps apart.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::{Connection, request};
use crate::load::{self, Load};
use crate::machine::{Foreign, Halves};
use crate::one_thread;
use crate::peers::start_upstreams;
use crate::plan::{Scale, show};
use crate::streams::{self, Streams};
use crate::table::{Aim, median, millis, percentile};
use crate::upstream::chat;
use way::Way;

mod crowd;
mod death;
mod sharing;
mod way;

const PATH: &str = "/api/chat";
const CONNECTIONS: usize = 64;
const FEW: Streams = Streams {
    count: 100,
    pace: Duration::from_millis(5),
    window: Duration::ZERO,
};
const FIRST_CHUNKS: usize = 50;
const SHORT_STREAM: (u64, Duration) = (4, Duration::from_millis(4));

/// Measures all of it.
pub(crate) async fn measure(scale: Scale) -> anyhow::Result<()> {
    tokio::task::spawn_blocking(move || {
        let halves = Halves::find()?;
        halves.to_load()?;
        let measured = one_thread()?.block_on(all(&halves, scale));
        halves.to_all()?;
        measured
    })
    .await?
}

async fn all(halves: &Halves, scale: Scale) -> anyhow::Result<()> {
    side_by_side(halves, scale).await?;
    crowd::idle(halves).await?;
    crowd::streams(halves, scale).await?;
    sharing::measure(halves).await?;
    death::measure(halves).await
}

async fn side_by_side(halves: &Halves, scale: Scale) -> anyhow::Result<()> {
    let (_upstreams, addrs) = start_upstreams().await?;
    let direct = Way::start(halves, &addrs[..1], &["--advertise", "127.0.0.1"]).await?;
    let tunnel = Way::start(halves, &addrs[..1], &[]).await?;
    let ways = [&direct, &tunnel];
    for way in ways {
        small_requests(way, scale).await?;
    }
    let foreign = Foreign::watch();
    let mut small = Vec::new();
    for _ in 0..rounds(scale) {
        small.push([
            small_requests(&direct, scale).await?,
            small_requests(&tunnel, scale).await?,
        ]);
    }
    show_costs(&foreign, "small request, 64 connections", &small);
    let foreign = Foreign::watch();
    let mut chunks = Vec::new();
    for _ in 0..rounds(scale) {
        chunks.push([
            chunk_cost(&direct, scale).await?,
            chunk_cost(&tunnel, scale).await?,
        ]);
    }
    show_costs(&foreign, "chunk, 100 streams", &chunks);
    let foreign = Foreign::watch();
    let mut firsts = Vec::new();
    for _ in 0..rounds(scale) {
        firsts.push([first_chunk(&direct).await?, first_chunk(&tunnel).await?]);
    }
    let added = median(
        firsts
            .iter()
            .map(|[direct, tunnel]| tunnel - direct)
            .collect(),
    );
    let [before, after] = medians(&firsts);
    show(
        &foreign,
        "tunnel: time to the first chunk, p50",
        format!("{after:.2} ms: {added:+.2} ms"),
        format!("direct {before:.2} ms"),
        Aim::AtMost {
            aim: 0.1,
            is: added,
            unit: " ms",
        },
    );
    Ok(())
}

fn rounds(scale: Scale) -> u64 {
    scale.peer_rounds.max(2)
}

fn medians(rounds: &[[f64; 2]]) -> [f64; 2] {
    [0, 1].map(|way| median(rounds.iter().map(|round| round[way]).collect()))
}

fn show_costs(foreign: &Foreign, what: &str, rounds: &[[f64; 2]]) {
    let ratio = median(
        rounds
            .iter()
            .map(|[direct, tunnel]| tunnel / direct)
            .collect(),
    );
    let [direct, tunnel] = medians(rounds);
    show(
        foreign,
        &format!("tunnel: CPU per {what}, coordinator and agent"),
        format!("{tunnel:.1} µs: {ratio:.2} x direct"),
        format!("direct {direct:.1} µs"),
        Aim::AtMost {
            aim: 1.5,
            is: ratio,
            unit: " x direct",
        },
    );
}

async fn small_requests(way: &Way, scale: Scale) -> anyhow::Result<f64> {
    let small = request("POST", PATH, None, &chat(None));
    let before = way.cpu();
    let load = Load::full(CONNECTIONS, scale.window * 2);
    let outcome = load::run(way.addr(), load, move |_| small.clone()).await?;
    let outcome = outcome.checked()?;
    Ok(outcome.micros_each(way.cpu().saturating_sub(before)))
}

async fn chunk_cost(way: &Way, scale: Scale) -> anyhow::Result<f64> {
    let streams = Streams {
        window: scale.window * 2,
        ..FEW
    };
    let streamed = streams::run(way.addr(), PATH, streams, &way.processes()).await?;
    Ok(streamed.cpu.as_secs_f64() * 1e6 / load::count(streamed.chunks.max(1)))
}

/// Returns the median in milliseconds.
async fn first_chunk(way: &Way) -> anyhow::Result<f64> {
    let request = request("POST", PATH, None, &chat(Some(SHORT_STREAM)));
    let mut connection = Connection::open(way.addr()).await?;
    let mut times = Vec::new();
    for _ in 0..FIRST_CHUNKS {
        let sent = Instant::now();
        let answer = connection.send(&request).await?;
        anyhow::ensure!(answer.is_success(), "a stream got {}", answer.status);
        times.push(answer.first_body_byte - sent);
    }
    Ok(millis(percentile(&times, 50)))
}
