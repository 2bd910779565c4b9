//! Wall clocks that are wrong or jump: they are only ever shown.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ollama_coordinator_common::protocol::event::Event;
use ollama_coordinator_common::protocol::view::AgentStatus;
use ollama_simulator::wait::{PATIENCE, wait_for};

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::clock;
use crate::support::events::EventStream;
use crate::support::process::Machine;
use crate::support::skip;

#[tokio::test]
async fn wall_clock_that_jumps_changes_nobodys_status() {
    let Some(library) = clock::library() else {
        return skip("wall clock", "libfaketime is not installed");
    };
    let machine = Machine::new();
    let clock = Clock {
        file: machine.home().join("clock"),
    };
    clock.set("+0");
    let process = machine.start_with(|command| {
        command
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &clock.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    });
    let process = process.await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(machine.api).await;
    let mut events = EventStream::open(machine.api).await;

    for (offset, hours) in [("+3600s", 1), ("-3600s", -1), ("+0", 0)] {
        clock.set(offset);
        let expected = Utc::now() + TimeDelta::hours(hours);
        let is_there = |now: &DateTime<Utc>| (*now - expected).abs() < TimeDelta::minutes(5);
        wait_for(
            "the clock to jump",
            PATIENCE,
            || coordinators_time(machine.api),
            is_there,
        )
        .await;

        assert_eq!(agent.beat(machine.api).await.status, 200);
        let shown = machine.api.agent(agent.id).await;
        let now = coordinators_time(machine.api).await;
        assert_eq!(shown.status, AgentStatus::Online);
        assert!(shown.last_seen <= now, "{} is after {now}", shown.last_seen);
        let age = (now - shown.last_seen)
            .to_std()
            .expect("it is not negative");
        assert!(age < Duration::from_secs(10), "{age:?}");
    }

    let history = events.stop_process_and_drain(process).await;
    let is_offline = |event: &&Event| match event {
        Event::AgentChanged { agent: changed, .. } => {
            changed.id == agent.id && changed.status == AgentStatus::Offline
        }
        Event::Snapshot { .. }
        | Event::AgentRemoved { .. }
        | Event::Happened { .. }
        | Event::Tick { .. }
        | Event::Resync => false,
    };
    let offline: Vec<_> = history.iter().filter(is_offline).collect();
    assert!(offline.is_empty(), "{offline:?}");
}

/// The wall clock of a process that runs under libfaketime.
struct Clock {
    file: PathBuf,
}

impl Clock {
    fn set(&self, offset: &str) {
        std::fs::write(&self.file, offset).expect("the home is writable");
    }
}

/// Returns the coordinator's wall clock: when it says that somebody new has registered.
async fn coordinators_time(api: Api) -> DateTime<Utc> {
    let passer_by = FakeAgent::new("passer-by");
    passer_by.register(api).await;
    let registered_at = api.agent(passer_by.id).await.registered_at;
    passer_by.leave(api).await;
    registered_at
}
