//! Agents that carry traffic are killed (SIGKILL) under steady load, their runtimes live on.
//!
//! `OLLAMA_COORDINATOR_AGENT_KILLS` says how many times.

use std::num::NonZeroU32;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::Event;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::runtime::script::RuntimeScript;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::support::api::Api;
use crate::support::events::EventStream;
use crate::support::process::Machine;
use crate::support::seen::{Seen, ask_until};
use crate::support::site::{Reach, Site};
use crate::support::{say, setting};

const CLIENTS: usize = 16;
/// After this time nothing is sent to an agent that was killed.
const SILENT_AFTER: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_agent_is_sent_nothing_after_a_second_and_no_client_fails_for_it() {
    let kills = setting("OLLAMA_COORDINATOR_AGENT_KILLS", 4);
    let machine = Machine::new();
    let _coordinator = machine.start().await;
    let mut sites = [
        Site::new(machine.api, "gpu-0", Reach::Tunnel, script()).await,
        Site::new(machine.api, "gpu-1", Reach::Tunnel, script()).await,
    ];
    let mut events = EventStream::open(machine.api).await;
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(ask_until(machine.api, client % 2 == 0, stop.clone()));
    }

    let mut noticed = Vec::new();
    for kill in 0..kills {
        let site = &mut sites[usize::try_from(kill).unwrap() % 2];
        sleep(Duration::from_millis(300)).await;
        let killed = Instant::now();
        site.kill().await;
        events.until(|event| routable(event, site.id, false)).await;
        noticed.push(killed.elapsed());
        sleep_until(killed + SILENT_AFTER).await;
        let attempts = attempts(machine.api, site.id).await;
        sleep(SILENT_AFTER / 4).await;
        assert_eq!(self::attempts(machine.api, site.id).await, attempts);
        site.start().await;
        events.until(|event| routable(event, site.id, true)).await;
    }
    stop.cancel();
    let mut seen = Seen::default();
    while let Some(client) = clients.join_next().await {
        seen.add(client.unwrap());
    }

    noticed.sort();
    let quantile = |percent: usize| noticed[(noticed.len() * percent).div_ceil(100) - 1];
    say(&format!(
        "agent with a tunnel killed {kills} times under load of {CLIENTS} clients: not routable \
         after p50 {:?}, p99 {:?}, largest {:?}; {seen:?}",
        quantile(50),
        quantile(99),
        quantile(100)
    ));
    assert!(quantile(100) < SILENT_AFTER, "{noticed:?}");
    assert!(seen.whole > 0, "nothing was answered");
    assert_eq!(
        (seen.failed, seen.broken, seen.silent),
        (0, 0, 0),
        "{seen:?}"
    );
}

fn script() -> RuntimeScript {
    RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(31),
        answer_tokens: NonZeroU32::new(20),
        tokens_per_second: NonZeroU32::new(200),
        ..RuntimeScript::default()
    }
}

fn routable(event: Event, id: AgentId, expected: bool) -> Option<()> {
    let is_it = |agent: &AgentView| agent.id == id && agent.routable == expected;
    matches!(event, Event::AgentChanged { agent, .. } if is_it(&agent)).then_some(())
}

/// Returns how many tries of requests at an agent have ended.
async fn attempts(api: Api, id: AgentId) -> u64 {
    let page = api.get("/metrics").await.text().await;
    let of_agent = format!("ollama_coordinator_attempts_total{{agent=\"{id}\"");
    let counts = page.lines().filter(|line| line.starts_with(&of_agent));
    let counts = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}
