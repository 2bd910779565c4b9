//! Who counts as alive, in real time: silence, a coordinator that was away, and restarts.

use std::time::Duration;

use ollama_coordinator_common::protocol::event::Event;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::coordinator::TestCoordinator;
use crate::support::events::EventStream;
use crate::support::process::Machine;

const INTERVAL: Duration = Duration::from_millis(200);
const TTL: Duration = Duration::from_millis(900);

#[tokio::test]
async fn silent_agent_is_offline_after_its_lease_and_not_before() {
    let coordinator = TestCoordinator::builder()
        .lease(INTERVAL, TTL)
        .start()
        .await;
    let (silent, beating) = (FakeAgent::new("silent"), FakeAgent::new("beating"));
    let _heart = Heart::of(&beating, coordinator.api).await;
    silent.register(coordinator.api).await;
    let registered = Instant::now();

    let offline = |agent: &AgentView| agent.status == AgentStatus::Offline;
    coordinator
        .api
        .wait_for_agent(silent.id, "offline", offline)
        .await;

    let silence = registered.elapsed();
    assert!(
        silence >= TTL.mul_f64(0.9),
        "offline after only {silence:?}"
    );
    assert_eq!(
        coordinator.api.agent(beating.id).await.status,
        AgentStatus::Online
    );
}

#[tokio::test]
async fn offline_agent_is_back_with_its_next_heartbeat() {
    let coordinator = TestCoordinator::builder()
        .lease(INTERVAL, TTL)
        .start()
        .await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    let offline = |agent: &AgentView| agent.status == AgentStatus::Offline;
    coordinator
        .api
        .wait_for_agent(agent.id, "offline", offline)
        .await;

    let beat = agent.beat(coordinator.api).await;

    assert_eq!(beat.status, 200);
    assert_eq!(
        coordinator.api.agent(agent.id).await.status,
        AgentStatus::Online
    );
}

#[tokio::test]
async fn coordinator_that_was_paused_blames_nobody() {
    let machine = Machine::new();
    let process = machine.start_with(short_leases).await;
    let agents: Vec<_> = (0..3)
        .map(|n| FakeAgent::new(&format!("gpu-{n}")))
        .collect();
    let mut hearts = Vec::new();
    for agent in &agents {
        hearts.push(Heart::of(agent, machine.api).await);
    }
    let mut events = EventStream::open(machine.api).await;

    process.signal(Signal::STOP);
    // The pause itself is what is tried out.
    sleep(TTL * 3).await;
    process.signal(Signal::CONT);

    let resumed = Instant::now();
    while resumed.elapsed() < TTL * 2 {
        for agent in machine.api.agents().await {
            assert_eq!(agent.status, AgentStatus::Online, "{agent:?}");
        }
    }
    let history = events.stop_process_and_drain(process).await;
    let offline: Vec<_> = history.iter().filter(|event| says_offline(event)).collect();
    assert!(offline.is_empty(), "{offline:?}");
}

#[tokio::test]
async fn agents_of_a_restarted_coordinator_are_never_offline() {
    let mut coordinator = TestCoordinator::builder()
        .lease(INTERVAL, TTL)
        .start()
        .await;
    let agent = FakeAgent::new("gpu-1");
    let heart = Heart::of(&agent, coordinator.api).await;

    coordinator.stop().await;
    sleep(TTL).await;
    coordinator.start().await;

    let ready = coordinator.api.get("/readyz").await.json().await;
    assert_eq!(
        (&ready["agents"], &ready["online"]),
        (&1.into(), &1.into()),
        "{ready}"
    );
    let recovering = async || {
        let agent = coordinator.api.agent(agent.id).await;
        assert_eq!(agent.status, AgentStatus::Online);
        coordinator.api.get("/readyz").await.json().await["recovering"].clone()
    };
    wait_for("heard of again", PATIENCE, recovering, |count| *count == 0).await;
    drop(heart);
    let offline = |agent: &AgentView| agent.status == AgentStatus::Offline;
    coordinator
        .api
        .wait_for_agent(agent.id, "offline", offline)
        .await;
}

/// Beats for an agent until it is dropped; failures do not matter.
struct Heart(#[expect(dead_code, reason = "ends the beating when dropped")] JoinSet<()>);

impl Heart {
    async fn of(agent: &FakeAgent, api: Api) -> Self {
        agent.register(api).await;
        let agent = agent.clone();
        let mut beating = JoinSet::new();
        beating.spawn(async move {
            let mut ticks = interval(INTERVAL);
            loop {
                ticks.tick().await;
                // A coordinator that is away is what these tests are about.
                drop(agent.try_beat(api).await);
            }
        });
        Self(beating)
    }
}

fn short_leases(command: &mut tokio::process::Command) {
    command
        .arg(format!("--heartbeat-interval={}ms", INTERVAL.as_millis()))
        .arg(format!("--agent-timeout={}ms", TTL.as_millis()));
}

fn says_offline(event: &Event) -> bool {
    match event {
        Event::AgentChanged { agent, .. } => agent.status == AgentStatus::Offline,
        Event::Snapshot { .. }
        | Event::AgentRemoved { .. }
        | Event::Happened { .. }
        | Event::Tick { .. }
        | Event::Resync => false,
    }
}
