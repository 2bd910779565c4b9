//! Connections that are slow, cut, stalled, swallowed, reset and refused: between agents and the
//! coordinator, and between the coordinator and runtimes.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use ollama_simulator::fault_proxy::{Direction, FaultProxy, ProxyFault};
use ollama_simulator::history::{Bounds, Recorder};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use tokio::time::sleep;

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::coordinator::TestCoordinator;
use crate::support::crowd::{Crowd, Silence};
use crate::support::process::Machine;
use crate::support::say;
use crate::support::site::{Reach, Site};
use crate::support::watch::{Habit, Watch};

const PERIOD: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(20);
/// As long as nobody is to be silent while the fleet is small.
const LEASE: Duration = Duration::from_secs(4);
/// Less than a lease, so that nobody notices.
const BRIEF: Duration = Duration::from_millis(1500);
/// Longer than a lease, so that everybody does.
const LONG: Duration = Duration::from_secs(11);
/// A ping that was lost is given up after 5 s, and a new tunnel opened.
const SETTLE: Duration = Duration::from_secs(6);
/// A lease is 4 s; a coordinator that gets no processor time for a second grants all of them anew.
const BOUNDS: Bounds = Bounds {
    recovery: Duration::ZERO,
    notice: Duration::from_secs(10),
    grace: Duration::ZERO,
};

const NOBODY: Silence = Silence {
    one_in: 0,
    lasts: PERIOD,
};

/// What a fault does to an agent behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It stays online and gets requests.
    None,
    /// It may be anything until it is over.
    Disturbed,
    /// It goes offline.
    Silent,
}

struct LinkFault {
    name: &'static str,
    fault: ProxyFault,
    lasts: Duration,
    effect: Effect,
}

const LINK_FAULTS: [LinkFault; 8] = [
    link_fault(
        "slow",
        ProxyFault::Delay(Duration::from_millis(200)),
        LONG,
        Effect::None,
    ),
    link_fault(
        "stalled for a moment",
        ProxyFault::Stall,
        BRIEF,
        Effect::None,
    ),
    link_fault("stalled", ProxyFault::Stall, LONG, Effect::Silent),
    link_fault("swallowed", ProxyFault::BlackHole, LONG, Effect::Silent),
    link_fault("reset", ProxyFault::Reset, BRIEF, Effect::Disturbed),
    link_fault("refused", ProxyFault::Refuse, LONG, Effect::Silent),
    link_fault(
        "cut on the way up",
        cut(Direction::ToUpstream, 2000),
        LONG,
        Effect::Disturbed,
    ),
    link_fault(
        "cut on the way down",
        cut(Direction::ToClient, 700),
        LONG,
        Effect::Disturbed,
    ),
];

const fn link_fault(
    name: &'static str,
    fault: ProxyFault,
    lasts: Duration,
    effect: Effect,
) -> LinkFault {
    LinkFault {
        name,
        fault,
        lasts,
        effect,
    }
}

const fn cut(direction: Direction, bytes: u64) -> ProxyFault {
    ProxyFault::CutAfter { direction, bytes }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_behind_bad_links_are_offline_when_they_must_be_and_come_back_as_themselves() {
    let machine = Machine::new();
    let _coordinator = machine.start().await;
    let mut watch = Watch::new(machine.api, PERIOD);
    let _crowd = Crowd::start(machine.api, 20, NOBODY, &watch.recorder);
    let steady = Site::new(machine.api, "steady", Reach::Tunnel, script(32)).await;
    steady.wait_until_it_works(&watch.recorder).await;
    let named = LINK_FAULTS
        .iter()
        .map(|trial| Site::new(machine.api, trial.name, Reach::Tunnel, script(4)));
    let sites = join_all(named).await;
    watch.ask(3, Habit::Stream, PAUSE);
    watch.ask(3, Habit::Small, PAUSE);
    watch.ask(1, Habit::Leave, PAUSE);

    let trials = sites.iter().zip(&LINK_FAULTS);
    let trials = trials.map(|(site, trial)| try_out(site, trial, watch.recorder.clone()));
    join_all(trials).await;

    let verdict = watch.end(&BOUNDS).await;
    say(&format!(
        "eight agents behind bad links, and twenty others: {}",
        verdict.said
    ));
    verdict.assert_clean("bad links of agents");
}

/// Has the link of a machine misbehave for a while, and writes down what may be seen of it.
async fn try_out(site: &Site, trial: &LinkFault, recorder: Recorder) {
    site.wait_until_it_works(&recorder).await;
    match trial.effect {
        Effect::None => {}
        Effect::Disturbed => recorder.disturbed(&site.name),
        Effect::Silent => recorder.silent(&site.name),
    }
    site.link.set_fault(trial.fault).await;
    sleep(trial.lasts).await;
    if trial.effect == Effect::None {
        site.link.set_fault(ProxyFault::None).await;
        return;
    }
    recorder.disturbed(&site.name);
    site.link.set_fault(ProxyFault::None).await;
    site.wait_until_it_works(&recorder).await;
    recorder.disturbed(&site.name);
    sleep(SETTLE).await;
    site.wait_until_it_works(&recorder).await;
    sleep(BRIEF).await;
}

const WAY_FAULTS: [(&str, ProxyFault); 8] = [
    ("slow", ProxyFault::Delay(Duration::from_millis(100))),
    ("cut in the question", cut(Direction::ToUpstream, 40)),
    ("cut in the head", cut(Direction::ToClient, 30)),
    ("cut in the answer", cut(Direction::ToClient, 700)),
    ("stalled", ProxyFault::Stall),
    ("swallowed", ProxyFault::BlackHole),
    ("reset", ProxyFault::Reset),
    ("refused", ProxyFault::Refuse),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_link_to_a_runtime_costs_no_request_that_has_not_begun() {
    let flags = ["--first-byte-timeout=2s", "--idle-timeout=2s"];
    let coordinator = TestCoordinator::builder().flags(&flags).start().await;
    let mut watch = Watch::new(coordinator.api, PERIOD);
    let mut machines = Vec::new();
    for number in 0..3 {
        let runtime = ScriptedRuntime::start(script(32)).await.unwrap();
        let way = FaultProxy::start(runtime.addr()).await.unwrap();
        let mut agent = FakeAgent::in_front_of(&runtime, &format!("gpu-{number}"));
        agent.runtime = way.addr();
        agent.report.slots = Some(runtime.script().slots);
        agent.join(coordinator.api).await;
        machines.push((runtime, way));
    }
    watch.ask(6, Habit::Stream, PAUSE);
    watch.ask(6, Habit::Small, PAUSE);
    watch.ask(1, Habit::Leave, PAUSE);

    for (turn, (_, fault)) in WAY_FAULTS.iter().enumerate() {
        let (_, way) = &machines[turn % machines.len()];
        sleep(BRIEF / 3).await;
        way.set_fault(*fault).await;
        sleep(BRIEF).await;
        way.set_fault(ProxyFault::None).await;
    }

    let verdict = watch.end(&BOUNDS).await;
    let faults = WAY_FAULTS.map(|(name, _)| name).join(", ");
    say(&format!("links to runtimes {faults}: {}", verdict.said));
    verdict.assert_clean("bad links to runtimes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_that_cannot_be_reached_back_is_online_and_gets_no_requests_until_it_can() {
    let flags = ["--first-byte-timeout=2s", "--idle-timeout=2s"];
    let machine = Machine::new();
    let coordinator = machine.start_with(|command| {
        command.args(flags);
    });
    let _coordinator = coordinator.await;
    let mut watch = Watch::new(machine.api, PERIOD);
    let one_way = Site::new(machine.api, "one-way", Reach::Direct, script(32)).await;
    one_way.wait_until_it_works(&watch.recorder).await;
    // Whoever has the model in memory goes on getting the requests for it.
    watch.ask(4, Habit::Stream, PAUSE);
    watch.ask(2, Habit::Small, PAUSE);
    sleep(BRIEF / 3).await;
    let steady = Site::new(machine.api, "steady", Reach::Tunnel, script(32)).await;
    steady.wait_until_it_works(&watch.recorder).await;

    watch.recorder.disturbed(&one_way.name);
    one_way.way.set_fault(ProxyFault::BlackHole).await;
    let is_left_out = |agent: &AgentView| !agent.routable;
    let left_out = machine
        .api
        .wait_for_agent(one_way.id, "left out", is_left_out)
        .await;
    one_way.way.set_fault(ProxyFault::None).await;
    one_way.wait_until_it_works(&watch.recorder).await;
    sleep(BRIEF / 3).await;

    assert_eq!(left_out.status, AgentStatus::Online);
    assert_eq!(watch.recorder.shown_offline().len(), 0);
    let verdict = watch.end(&BOUNDS).await;
    say(&format!(
        "an agent that is heard and not reached is {:?}: {}",
        left_out.reason, verdict.said
    ));
    verdict.assert_clean("an agent that is heard and not reached");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_all_fall_silent_for_longer_than_a_lease_are_not_taken_for_dead_at_once() {
    let machine = Machine::new();
    let _coordinator = machine.start().await;
    let link = FaultProxy::start(machine.api.addr()).await.unwrap();
    let mut watch = Watch::new(machine.api, PERIOD);
    let steady = Site::new(machine.api, "steady", Reach::Tunnel, script(32)).await;
    steady.wait_until_it_works(&watch.recorder).await;
    let _crowd = Crowd::start(Api::new(link.addr()), 20, NOBODY, &watch.recorder);
    watch.ask(1, Habit::Small, PAUSE);
    let online = async || machine.api.get("/readyz").await.json().await["online"].clone();
    wait_for("all online", PATIENCE, online, |online| *online == 21).await;

    link.set_fault(ProxyFault::BlackHole).await;
    sleep(LEASE + BRIEF / 2).await;
    link.set_fault(ProxyFault::None).await;
    sleep(LEASE).await;

    let offline = watch.recorder.shown_offline();
    assert!(offline.is_empty(), "{offline:?}");
    watch.end(&BOUNDS).await.assert_clean("all fall silent");
}

fn script(slots: u32) -> RuntimeScript {
    RuntimeScript {
        slots: NonZeroU32::new(slots).expect("it is not 0"),
        answer_tokens: NonZeroU32::new(20),
        tokens_per_second: NonZeroU32::new(200),
        ..RuntimeScript::default()
    }
}
