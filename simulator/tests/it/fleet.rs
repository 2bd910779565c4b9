//! A fleet against a coordinator that only keeps a list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use ollama_simulator::fleet::storm::register_storm;
use ollama_simulator::fleet::{Fleet, FleetError, FleetOptions};
use ollama_simulator::wait::{PATIENCE, wait_for};
use tokio::time::Instant;

use crate::fake_coordinator::FakeCoordinator;

const INTERVAL: Duration = Duration::from_millis(100);
const AGENTS: usize = 50;

fn options(coordinator: &FakeCoordinator) -> FleetOptions {
    let runtime = SocketAddr::from(([127, 0, 0, 1], 11434));
    FleetOptions {
        connections: NonZeroUsize::new(4).expect("four is not zero"),
        ..FleetOptions::new(coordinator.addr, runtime, AGENTS)
    }
}

async fn started(coordinator: &FakeCoordinator) -> Fleet {
    let fleet = Fleet::start(options(coordinator)).await;
    let fleet = fleet.expect("both addresses are loopback addresses");
    let seen = async || fleet.summary().registered;
    wait_for("all registered", PATIENCE, seen, |seen| *seen == AGENTS).await;
    fleet
}

fn beats_of_each(coordinator: &FakeCoordinator) -> BTreeMap<AgentId, Vec<u64>> {
    let mut beats: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (id, seq) in coordinator.log().heartbeats {
        beats.entry(id).or_default().push(seq);
    }
    beats
}

#[tokio::test]
async fn every_agent_registers_once_and_keeps_its_cadence_in_order() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let start = Instant::now();
    let fleet = started(&coordinator).await;

    let seen = async || {
        let beats = beats_of_each(&coordinator);
        (beats.len(), beats.values().map(Vec::len).min())
    };
    wait_for(
        "five heartbeats of each",
        PATIENCE,
        seen,
        |(agents, fewest)| *agents == AGENTS && fewest.is_some_and(|fewest| fewest >= 5),
    )
    .await;
    let summary = fleet.kill().await;
    let elapsed = start.elapsed();

    let log = coordinator.log();
    let ids: BTreeSet<_> = log.registrations.iter().map(|r| r.agent_id).collect();
    assert_eq!((log.registrations.len(), ids.len()), (AGENTS, AGENTS));
    assert_eq!(log.wrong_secrets, 0);
    let at_most = elapsed
        .as_nanos()
        .div_ceil(INTERVAL.mul_f64(0.9).as_nanos());
    for beats in beats_of_each(&coordinator).values() {
        assert!(
            beats.iter().copied().eq(1..=beats.len() as u64),
            "{beats:?}"
        );
        assert!(
            beats.len() as u128 <= at_most,
            "more than {at_most} in {elapsed:?}: {beats:?}"
        );
    }
    assert_eq!(
        (summary.registrations_ok, summary.acknowledged),
        (AGENTS, AGENTS)
    );
    assert_eq!((summary.heartbeats_failed, summary.unknown_agent), (0, 0));
    assert_eq!(summary.heartbeat_latency.count, summary.heartbeats_ok);
}

#[tokio::test]
async fn registration_tells_of_a_simulated_machine_and_runtime() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let fleet = started(&coordinator).await;

    let first = fleet.agent_id(0);
    let registrations = coordinator.log().registrations;
    let request = registrations
        .iter()
        .find(|r| r.agent_id == Some(first))
        .unwrap();

    assert_eq!(request.machine_name, "simulated-000000");
    assert_eq!(
        (request.ip_address, request.port),
        (Some([127, 0, 0, 1].into()), 11434)
    );
    assert_eq!(request.runtime.as_ref().unwrap().models.len(), 2);
    assert_eq!(
        request
            .system_info
            .as_ref()
            .unwrap()
            .gpus
            .as_ref()
            .unwrap()
            .len(),
        1
    );
    assert!(fleet.acknowledged().contains(&(first, 7)));
}

#[tokio::test]
async fn forgotten_agents_register_again_by_themselves() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let fleet = started(&coordinator).await;

    coordinator.forget_everyone();

    let seen = async || coordinator.log().registrations.len();
    wait_for("second registrations", PATIENCE, seen, |seen| {
        *seen == 2 * AGENTS
    })
    .await;
    assert_eq!(fleet.summary().unknown_agent, AGENTS as u64);
    let again = &coordinator.log().registrations[AGENTS..];
    assert!(again.iter().all(|request| request.epoch == Some(7)));
}

#[tokio::test]
async fn paused_agents_are_silent_and_the_others_go_on() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let fleet = started(&coordinator).await;
    let silent: BTreeSet<_> = (0..AGENTS - 1).map(|index| fleet.agent_id(index)).collect();

    fleet.pause_agents(AGENTS - 1).await;
    let before = coordinator.heartbeats();
    let seen = async || coordinator.heartbeats() - before;
    wait_for("beats of the last agent", PATIENCE, seen, |beats| {
        *beats >= 3
    })
    .await;

    let later = coordinator.log().heartbeats.split_off(before);
    assert!(
        later.iter().all(|(id, _)| !silent.contains(id)),
        "{later:?}"
    );

    let before = coordinator.heartbeats();
    fleet.resume().await;
    let seen = async || {
        let later = coordinator.log().heartbeats.split_off(before);
        later
            .iter()
            .map(|(id, _)| *id)
            .collect::<BTreeSet<_>>()
            .len()
    };
    wait_for("beats of all", PATIENCE, seen, |agents| *agents == AGENTS).await;
}

#[tokio::test]
async fn stopped_fleet_says_goodbye_for_each_agent() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let fleet = started(&coordinator).await;

    let summary = fleet.stop().await;

    assert_eq!(
        (summary.goodbyes_ok, summary.registered),
        (AGENTS as u64, 0)
    );
    assert_eq!(coordinator.log().goodbyes.len(), AGENTS);
}

#[tokio::test]
async fn same_seed_is_the_same_agents_again_with_new_sessions() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    started(&coordinator).await.kill().await;
    started(&coordinator).await.kill().await;

    let mut log = coordinator.log().registrations;
    log.sort_by_key(|request| request.agent_id);

    for pair in log.chunks(2) {
        assert_eq!(pair[0].agent_id, pair[1].agent_id);
        assert_ne!(pair[0].session, pair[1].session);
    }
}

#[tokio::test]
async fn storm_registers_each_agent_once() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let concurrency = NonZeroUsize::new(16).unwrap();

    let report = register_storm(&options(&coordinator), concurrency)
        .await
        .unwrap();

    let acknowledged: BTreeSet<_> = report.acknowledged.iter().collect();
    assert_eq!((acknowledged.len(), report.failed), (AGENTS, 0));
    assert_eq!(report.latency.count, AGENTS as u64);
    assert!(report.latency.p50_us <= report.latency.max_us);
    assert_eq!(coordinator.log().registrations.len(), AGENTS);
}

#[tokio::test]
async fn nothing_but_loopback_is_dialled() {
    let coordinator = FakeCoordinator::start(INTERVAL).await;
    let mut options = options(&coordinator);
    options.coordinator = SocketAddr::from(([192, 0, 2, 1], 11400));

    let refused = Fleet::start(options).await.err().unwrap();

    assert!(matches!(refused, FleetError::NotLoopback(addr) if addr.port() == 11400));
}
