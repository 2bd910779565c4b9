//! Processes that stand still or hardly get any processor time, disks that are taken away and clocks
//! of agents that are wrong.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use ollama_simulator::history::Bounds;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use rustix::process::Signal;
use tokio::time::sleep;

use crate::support::agent::FakeAgent;
use crate::support::agent_process::AgentHome;
use crate::support::clock;
use crate::support::crowd::{Crowd, Silence};
use crate::support::mount::Mount;
use crate::support::process::{CoordinatorProcess, Machine};
use crate::support::site::{Reach, Site};
use crate::support::watch::{Habit, Watch};
use crate::support::{say, skip};

const PERIOD: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(20);
const NOBODY: Silence = Silence {
    one_in: 0,
    lasts: PERIOD,
};
/// A lease is 4 s; a coordinator that gets no processor time for a second grants all of them anew.
const BOUNDS: Bounds = Bounds {
    recovery: Duration::ZERO,
    notice: Duration::from_secs(10),
    grace: Duration::from_secs(10),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_that_stands_still_is_offline_after_its_lease_and_back_by_itself() {
    let machine = Machine::new();
    let _coordinator = machine.start().await;
    let mut watch = Watch::new(machine.api, PERIOD);
    let steady = Site::new(machine.api, "steady", Reach::Tunnel, script()).await;
    let stopped = Site::new(machine.api, "stopped", Reach::Tunnel, script()).await;
    let _crowd = Crowd::start(machine.api, 10, NOBODY, &watch.recorder);
    steady.wait_until_it_works(&watch.recorder).await;
    stopped.wait_until_it_works(&watch.recorder).await;
    watch.ask(2, Habit::Stream, PAUSE);
    watch.ask(2, Habit::Small, PAUSE);

    // Less than a lease: nothing is to be seen of it.
    stopped.agent.signal(Signal::STOP);
    sleep(Duration::from_millis(1500)).await;
    stopped.agent.signal(Signal::CONT);
    sleep(Duration::from_secs(2)).await;
    watch.recorder.silent(&stopped.name);
    stopped.agent.signal(Signal::STOP);
    sleep(Duration::from_secs(11)).await;
    watch.recorder.disturbed(&stopped.name);
    stopped.agent.signal(Signal::CONT);
    stopped.wait_until_it_works(&watch.recorder).await;
    sleep(Duration::from_secs(1)).await;

    let verdict = watch.end(&BOUNDS).await;
    say(&format!(
        "an agent that stood still for 1.5 s, then for 11 s: {}",
        verdict.said
    ));
    verdict.assert_clean("an agent that stood still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinator_that_stands_still_or_starves_loses_no_request_and_no_agent() {
    let machine = Machine::new();
    let coordinator = machine.start().await;
    let mut watch = Watch::new(machine.api, PERIOD);
    let tunnel = Site::new(machine.api, "tunnel", Reach::Tunnel, script()).await;
    let direct = Site::new(machine.api, "direct", Reach::Direct, script()).await;
    let _crowd = Crowd::start(machine.api, 100, NOBODY, &watch.recorder);
    tunnel.wait_until_it_works(&watch.recorder).await;
    direct.wait_until_it_works(&watch.recorder).await;
    watch.ask(2, Habit::Stream, PAUSE);
    watch.ask(2, Habit::Small, PAUSE);
    sleep(Duration::from_secs(1)).await;

    coordinator.signal(Signal::STOP);
    sleep(Duration::from_secs(5)).await;
    coordinator.signal(Signal::CONT);
    sleep(Duration::from_secs(2)).await;
    starve(&coordinator, Duration::from_secs(5)).await;
    sleep(Duration::from_secs(1)).await;

    let offline = watch.recorder.shown_offline();
    let verdict = watch.end(&BOUNDS).await;
    say(&format!(
        "coordinator of 102 agents stopped for 5 s, then given a tenth of the time for 5 s: \
         {} shown offline, {}",
        offline.len(),
        verdict.said
    ));
    assert!(offline.is_empty(), "{offline:?}");
    verdict.assert_clean("a coordinator that stood still");
}

/// Gives a process a tenth of the time, in pieces.
async fn starve(coordinator: &CoordinatorProcess, lasts: Duration) {
    let turn = Duration::from_millis(200);
    for _ in 0..lasts.as_millis() / turn.as_millis() {
        coordinator.signal(Signal::STOP);
        sleep(turn * 9 / 10).await;
        coordinator.signal(Signal::CONT);
        sleep(turn / 10).await;
    }
}

#[tokio::test]
async fn disk_that_becomes_read_only_refuses_new_agents_and_keeps_the_others_until_it_is_writable()
{
    let mount = match Mount::tmpfs("4m") {
        Ok(mount) => mount,
        Err(reason) => return skip("a disk that becomes read-only", &reason),
    };
    let machine = Machine::new();
    let data_dir = format!("--data-dir={}", mount.path().display());
    let start = machine.start_with(|command| {
        command.arg(data_dir);
    });
    let _coordinator = start.await;
    let mut watch = Watch::new(machine.api, PERIOD);
    let site = Site::new(machine.api, "known", Reach::Tunnel, script()).await;
    let _crowd = Crowd::start(machine.api, 10, NOBODY, &watch.recorder);
    site.wait_until_it_works(&watch.recorder).await;
    watch.ask(2, Habit::Stream, PAUSE);
    let storage = async || machine.api.get("/readyz").await.json().await["storage"].clone();
    sleep(Duration::from_secs(2)).await;

    let cover = mount.cover_read_only();
    let new = FakeAgent::new("new");
    let registration = new.registration();
    let mut refused = new.send(machine.api, "/api/agents", &registration).await;
    assert_eq!(refused.problem(503).await["code"], "storage_unavailable");
    assert_eq!(machine.api.get("/api/agents").await.status, StatusCode::OK);
    // As long as a lease: heartbeats need no disk.
    sleep(Duration::from_secs(4)).await;
    drop(cover);

    wait_for("healed", PATIENCE, storage, |storage| *storage == "ok").await;
    new.register(machine.api).await;
    watch.end(&BOUNDS).await.assert_clean("a read-only disk");
}

#[tokio::test]
async fn agent_whose_clock_is_wrong_by_years_joins_and_stays() {
    let Some(library) = clock::library() else {
        return skip("an agent's clock", "libfaketime is not installed");
    };
    let machine = Machine::new();
    let _coordinator = machine.start().await;
    let runtime = ScriptedRuntime::start(script()).await.unwrap();
    let home = AgentHome::new("in the past");
    let (coordinator, runtime) = (machine.api.url(), runtime.url());
    let told = ["--coordinator", &coordinator, "--runtime", &runtime];
    let library = library.display().to_string();
    let wrong = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME", "-3650d"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];

    let _agent = home.start(&told, &wrong);

    let agents = || machine.api.agents();
    let routable = wait_for("routable", PATIENCE, agents, |agents| {
        agents.iter().any(|agent| agent.routable)
    });
    let id = routable.await[0].id;
    let watch = Watch::new(machine.api, PERIOD);
    watch.recorder.works("in the past");
    sleep(Duration::from_secs(5)).await;
    let shown = machine.api.agent(id).await;
    let age = chrono::Utc::now() - shown.last_seen;
    assert!(age < chrono::TimeDelta::seconds(10), "{age}");
    let mut watch = watch;
    watch.ask(1, Habit::Small, PAUSE);
    sleep(Duration::from_millis(500)).await;
    watch.end(&BOUNDS).await.assert_clean("an agent's clock");
}

fn script() -> RuntimeScript {
    RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(31),
        answer_tokens: NonZeroU32::new(20),
        tokens_per_second: NonZeroU32::new(200),
        ..RuntimeScript::default()
    }
}
