//! A first cut at the proxy: what a small request costs, and what it adds to the first chunk.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use tokio::time::{Instant, sleep};

use super::heartbeats::anchor_micros;
use crate::client::{Connection, request};
use crate::coordinator::{Coordinator, Leases, work_dir};
use crate::load::{self, Load};
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::table::{Aim, median, millis, percentile};

const CONNECTIONS: usize = 64;
const ROUTABLE_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const STREAMS_A_ROUND: usize = 100;

/// Measures requests through the coordinator next to the same requests straight to the runtime.
pub(crate) async fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let runtime = ScriptedRuntime::start(RuntimeScript {
        slots: NonZeroU32::MAX,
        answer_tokens: NonZeroU32::new(4),
        ..RuntimeScript::default()
    });
    let runtime = runtime.await?;
    let dir = work_dir()?;
    let coordinator = Coordinator::start(dir.path(), Leases::Long).await?;
    let port = runtime.addr().port();
    let body = format!(r#"{{"machine_name":"one","ip_address":"127.0.0.1","port":{port}}}"#);
    let mut connection = Connection::open(coordinator.addr).await?;
    let registration = request("POST", "/api/agents", None, &body);
    let registered = connection.send(&registration).await?;
    anyhow::ensure!(registered.is_success(), "the runtime was not registered");
    routable(&mut connection).await?;

    small_requests(bench, &coordinator).await?;
    first_chunks(bench, &coordinator, runtime.addr()).await
}

async fn routable(connection: &mut Connection) -> anyhow::Result<()> {
    let deadline = Instant::now() + ROUTABLE_WITHIN;
    while !connection.send(&chat(false)).await?.is_success() {
        anyhow::ensure!(Instant::now() < deadline, "no request is answered");
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn chat(stream: bool) -> Vec<u8> {
    let body = format!(
        r#"{{"model":"simulated-small","stream":{stream},"messages":[{{"role":"user","content":"How many agents fit on one page?"}}]}}"#
    );
    request("POST", "/api/chat", None, &body)
}

async fn small_requests(bench: &Bench, coordinator: &Coordinator) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let (mut costs, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        let anchor = anchor_micros(bench).await?;
        let before = coordinator.process.cpu();
        let load = Load::full(CONNECTIONS, bench.scale.window);
        let outcome = load::run(coordinator.addr, load, |_| chat(false)).await?;
        let outcome = outcome.checked()?;
        let cost = outcome.micros_each(coordinator.process.cpu().saturating_sub(before));
        costs.push(cost);
        ratios.push(cost / anchor);
    }
    show(
        &foreign,
        "proxy: CPU per small request",
        format!(
            "{:.1} µs: {:.1} x the anchor",
            median(costs),
            median(ratios)
        ),
        "axum no-op".to_owned(),
        Aim::None,
    );
    Ok(())
}

async fn first_chunks(
    bench: &Bench,
    coordinator: &Coordinator,
    runtime: SocketAddr,
) -> anyhow::Result<()> {
    let foreign = Foreign::watch();
    let mut through = Connection::open(coordinator.addr).await?;
    let mut straight = Connection::open(runtime).await?;
    let (mut proxied, mut direct) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        for _ in 0..STREAMS_A_ROUND {
            direct.push(first_chunk(&mut straight).await?);
            proxied.push(first_chunk(&mut through).await?);
        }
    }
    let [ours, bare] = [&proxied, &direct].map(|times| millis(percentile(times, 50)));
    show(
        &foreign,
        "proxy: time to first chunk, p50",
        format!(
            "{ours:.3} ms: {:.3} ms added, {:.1} x",
            ours - bare,
            ours / bare
        ),
        format!("straight to the runtime {bare:.3} ms"),
        Aim::AtMost {
            aim: 0.15,
            is: ours - bare,
            unit: " ms added",
        },
    );
    Ok(())
}

async fn first_chunk(connection: &mut Connection) -> anyhow::Result<Duration> {
    let sent = Instant::now();
    let answer = connection.send(&chat(true)).await?;
    anyhow::ensure!(answer.is_success(), "stream got {}", answer.status);
    Ok(answer.first_body_byte - sent)
}
