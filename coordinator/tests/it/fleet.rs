//! A whole fleet over real sockets: the coordinator dies, restarts and sleeps, and nobody who lives
//! is taken for dead.
//!
//! `OLLAMA_COORDINATOR_FLEET` (agents) and `OLLAMA_COORDINATOR_PAUSE` (seconds) set the size of the
//! run; the defaults are those of a quick one.

use std::time::Duration;

use ollama_simulator::fleet::stats::FleetSummary;
use ollama_simulator::fleet::{Fleet, FleetOptions};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::wait_for;
use rustix::process::Signal;

use crate::support::process::Machine;
use crate::support::setting;

/// Time enough for every agent to be heard of again after a fault, also on a busy machine.
const RECOVERY: Duration = Duration::from_secs(40);

#[tokio::test]
async fn nobody_is_wrongly_offline_when_the_coordinator_is_killed_restarted_and_paused() {
    let agents = setting("OLLAMA_COORDINATOR_FLEET", 200);
    let pause = Duration::from_secs(setting("OLLAMA_COORDINATOR_PAUSE", 8));
    let machine = Machine::new();
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let coordinator = machine.start().await;
    let size = usize::try_from(agents).unwrap();
    let options = FleetOptions::new(machine.api.addr(), runtime.addr(), size);
    let fleet = Fleet::start(options).await.unwrap();
    everybody_is_heard_of(&fleet, &machine, size).await;
    let mut expired = expired_leases(&machine).await;

    coordinator.kill().await;
    let coordinator = machine.start().await;
    everybody_is_heard_of(&fleet, &machine, size).await;

    coordinator.signal(Signal::STOP);
    tokio::time::sleep(pause).await;
    coordinator.signal(Signal::CONT);
    everybody_is_heard_of(&fleet, &machine, size).await;

    expired += expired_leases(&machine).await;
    let FleetSummary {
        registrations_ok,
        unknown_agent,
        ..
    } = fleet.summary();
    println!(
        "{agents} agents, coordinator killed, restarted and paused {} s: {expired} wrongly \
         offline, {unknown_agent} not recognised, {registrations_ok} registrations",
        pause.as_secs()
    );
    assert_eq!((expired, unknown_agent, registrations_ok), (0, 0, size));
    fleet.kill().await;
    assert!(coordinator.stop().await.success());
}

/// Waits until every agent was heard of after this call, and is online.
async fn everybody_is_heard_of(fleet: &Fleet, machine: &Machine, agents: usize) {
    wait_for(
        "registered",
        RECOVERY,
        || async { fleet.summary().registered },
        |n| *n == agents,
    )
    .await;
    let before = fleet.summary().heartbeats_ok;
    let several_each = before + 6 * agents as u64;
    wait_for(
        "heartbeats",
        RECOVERY,
        || async { fleet.summary().heartbeats_ok },
        |beats| *beats >= several_each,
    )
    .await;
    let readiness = async || machine.api.get("/readyz").await.json().await;
    wait_for(
        "everybody online",
        RECOVERY,
        readiness,
        |ready: &serde_json::Value| ready["online"] == agents && ready["recovering"] == 0,
    )
    .await;
}

/// Counts whose lease ran out, whether their runtime answered or not.
async fn expired_leases(machine: &Machine) -> u64 {
    let page = machine.api.get("/metrics").await.text().await;
    let count = |name: &str| -> u64 {
        let name = format!("ollama_coordinator_{name}_total ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("the metric is there")
            .parse()
            .expect("it is a number")
    };
    count("expired_leases") + count("missing_heartbeats")
}
