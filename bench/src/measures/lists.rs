//! `GET /api/agents`: while nothing changes, and while heartbeats go on.

use std::time::Duration;

use crate::client::request;
use crate::coordinator::Coordinator;
use crate::fleet::{heartbeat, heartbeat_with_load};
use crate::load::{self, Load, Outcome};
use crate::machine::Foreign;
use crate::plan::{Bench, show};
use crate::table::{Aim, median, millis, spread};

/// Heartbeats meanwhile: ten connections, each so often.
const BEATERS: usize = 10;
const BEAT_EVERY: Duration = Duration::from_millis(10);

/// Measures lists of `agents` agents, both ways.
pub(crate) async fn measure(
    bench: &mut Bench,
    coordinator: &Coordinator,
    agents: u64,
) -> anyhow::Result<()> {
    let aim = |is| match agents {
        10_000 => Aim::AtMost {
            aim: 1.3,
            is,
            unit: " ms",
        },
        _ => Aim::None,
    };
    let foreign = Foreign::watch();
    let (mut costs, mut latencies) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        let before = coordinator.process.cpu();
        let outcome = list(coordinator, bench.scale.window).await?;
        let cost = coordinator.process.cpu().saturating_sub(before);
        costs.push(outcome.micros_each(cost) / 1e3);
        latencies.extend(outcome.latencies);
    }
    let cost = median(costs);
    show(
        &foreign,
        &format!("list of {agents} agents, nothing changes"),
        format!("CPU {cost:.2} ms, {}", spread(&latencies)),
        String::new(),
        aim(cost),
    );
    let foreign = Foreign::watch();
    let (cost, latencies) = while_beating(bench, coordinator, agents).await?;
    show(
        &foreign,
        &format!("list of {agents} agents, 1,000 heartbeats/s, half with load"),
        format!("CPU {cost:.2} ms more, {}", spread(&latencies)),
        String::new(),
        aim(cost),
    );
    Ok(())
}

async fn list(coordinator: &Coordinator, lasting: Duration) -> anyhow::Result<Outcome> {
    let get = |_number| request("GET", "/api/agents", None, "");
    let outcome = load::run(coordinator.addr, Load::full(1, lasting), get);
    outcome.await?.checked()
}

/// Returns what a list costs beyond the heartbeats, in milliseconds, and how long each took.
async fn while_beating(
    bench: &mut Bench,
    coordinator: &Coordinator,
    agents: u64,
) -> anyhow::Result<(f64, Vec<Duration>)> {
    let (mut costs, mut latencies) = (Vec::new(), Vec::new());
    for _ in 0..bench.scale.rounds {
        let (lasting, seq) = (bench.scale.window, bench.fresh_seq());
        let load = Load {
            pause: BEAT_EVERY,
            ..Load::full(BEATERS, lasting)
        };
        let beat = move |seq| {
            move |number| {
                let speak = if number % 2 == 0 {
                    heartbeat
                } else {
                    heartbeat_with_load
                };
                speak(number % agents, 0, seq + number)
            }
        };
        let before = coordinator.process.cpu();
        load::run(coordinator.addr, load, beat(seq))
            .await?
            .checked()?;
        let alone = coordinator.process.cpu();
        let beats = load::run(coordinator.addr, load, beat(bench.fresh_seq()));
        let (beats, lists) = tokio::join!(beats, list(coordinator, lasting));
        let both = coordinator.process.cpu().saturating_sub(alone);
        beats?.checked()?;
        let lists = lists?;
        let more = both.saturating_sub(alone.saturating_sub(before));
        costs.push(millis(more) / load::count(lists.succeeded.max(1)));
        latencies.extend(lists.latencies);
    }
    Ok((median(costs), latencies))
}
