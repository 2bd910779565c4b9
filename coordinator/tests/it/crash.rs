//! Killing the coordinator (SIGKILL) again and again while agents register.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_coordinator::storage::{self, Change, Store as _};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, request};
use crate::support::process::Machine;
use crate::support::say;

/// Says how many times to kill; a night can have thousands.
const CYCLES: &str = "OLLAMA_COORDINATOR_KILL_CYCLES";
const DEFAULT_CYCLES: usize = 200;
/// A registry is begun anew after so many cycles, so that late ones are as fast as early ones.
const CYCLES_PER_REGISTRY: usize = 50;
/// With a journal each start takes longer.
const CYCLES_PER_LARGE_CYCLE: usize = 10;
const CLIENTS: usize = 8;
const LONGEST_LIFE: Duration = Duration::from_millis(40);

#[tokio::test]
async fn acknowledged_registrations_survive_kill_9_at_any_moment() {
    kill_while_agents_register(cycles(), Fleet::Small).await;
}

#[tokio::test]
async fn acknowledged_registrations_in_a_journal_survive_kill_9_at_any_moment() {
    kill_while_agents_register(cycles() / CYCLES_PER_LARGE_CYCLE, Fleet::Large).await;
}

/// What is registered before anything is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fleet {
    /// Nobody.
    Small,
    /// So much that a journal follows the file.
    Large,
}

fn cycles() -> usize {
    std::env::var(CYCLES).map_or(DEFAULT_CYCLES, |text| {
        text.parse().expect("it is a number of cycles")
    })
}

async fn kill_while_agents_register(cycles: usize, fleet: Fleet) {
    let seed: u64 = rand::random();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut machine = Machine::new();
    let mut acknowledged = BTreeSet::new();
    let (mut total, mut lost) = (0, Vec::new());

    for cycle in 0..cycles {
        if cycle % CYCLES_PER_REGISTRY == 0 {
            machine = Machine::new();
            acknowledged.clear();
            if fleet == Fleet::Large {
                acknowledged.extend(register_many(&machine.data_dir()));
            }
        }
        let process = machine.start().await;
        lost.extend(missing(machine.api, &acknowledged).await);
        let mut clients = JoinSet::new();
        let acknowledges = Arc::new(Notify::new());
        for _ in 0..CLIENTS {
            clients.spawn(register_until_it_dies(
                machine.api,
                Arc::clone(&acknowledges),
            ));
        }
        if cycle % 2 == 0 {
            acknowledges.notified().await;
        }
        // Not to wait for something: the moment is what is tried out.
        sleep(LONGEST_LIFE.mul_f64(rng.random())).await;
        process.kill().await;
        for ids in clients.join_all().await {
            total += ids.len();
            acknowledged.extend(ids);
        }
        match fleet {
            Fleet::Small => {
                lost.extend(missing_in_file(&machine.agents_file(), &acknowledged));
            }
            Fleet::Large => assert!(has_journal(&machine.data_dir())),
        }
    }
    let process = machine.start().await;
    lost.extend(missing(machine.api, &acknowledged).await);
    process.kill().await;

    let lost_count = lost.len();
    say(&format!(
        "{fleet:?} fleet: {cycles} kill -9 cycles, {total} acknowledged registrations, {lost_count} lost"
    ));
    assert!(lost.is_empty(), "seed {seed}: {lost:?}");
    assert!(total >= cycles / 2, "the kills came too early: {total}");
}

/// Stores a few agents with long notes, of more than a mebibyte; returns their ids.
fn register_many(data_dir: &Path) -> Vec<AgentId> {
    let mut store = storage::open(data_dir, None).expect("the directory is new");
    store.load().expect("there is nothing yet");
    let agents = (1..=20).map(|number| {
        let mut agent = storage::conformance::agent(number);
        agent.link = LinkKind::Tunnel;
        agent.notes = Some("x".repeat(60_000));
        agent
    });
    let agents: Vec<_> = agents.collect();
    let batch: Vec<_> = agents
        .iter()
        .cloned()
        .map(Arc::new)
        .map(Change::Put)
        .collect();
    store.commit(&batch).expect("the disk has room");
    agents.iter().map(|agent| agent.id).collect()
}

fn has_journal(data_dir: &Path) -> bool {
    let names = std::fs::read_dir(data_dir).expect("it is there");
    let mut names = names.map(|entry| entry.expect("it is readable").file_name());
    names.any(|name| name.to_string_lossy().starts_with("agents.json.journal-"))
}

/// Registers one new agent after another; returns those that were told that they are known.
async fn register_until_it_dies(api: Api, acknowledges: Arc<Notify>) -> Vec<AgentId> {
    let mut acknowledged = Vec::new();
    loop {
        let agent = FakeAgent::new("gpu");
        let registration = agent.registration().to_string();
        let registration = agent.signed(request(Method::POST, "/api/agents", registration));
        match api.try_send(registration).await {
            Ok(answer) => {
                assert_eq!(answer.status, StatusCode::CREATED);
                acknowledged.push(agent.id);
                acknowledges.notify_one();
            }
            Err(_killed) => return acknowledged,
        }
    }
}

/// Returns the agents that should be listed and are not; none may be listed twice.
async fn missing(api: Api, acknowledged: &BTreeSet<AgentId>) -> Vec<AgentId> {
    let agents = api.agents().await;
    let listed: BTreeSet<_> = agents.iter().map(|agent| agent.id).collect();
    assert_eq!(listed.len(), agents.len(), "an agent is listed twice");
    let ready = api.get("/readyz").await.json().await;
    let registry = ready["registry"].as_str().expect("it is text");
    assert!(
        ["clean", "new"].contains(&registry),
        "the file itself must always be whole: {registry}"
    );
    acknowledged.difference(&listed).copied().collect()
}

/// Returns the agents that should be in the file and are not; it must be whole when it is there.
fn missing_in_file(path: &Path, acknowledged: &BTreeSet<AgentId>) -> Vec<AgentId> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(_not_there_yet) => return acknowledged.iter().copied().collect(),
    };
    let file: Value = serde_json::from_str(&text).expect("the file is whole");
    let agents = file["agents"].as_array().expect("it has agents");
    let id = |agent: &Value| serde_json::from_value(agent["id"].clone()).expect("it has an id");
    let stored: Vec<AgentId> = agents.iter().map(id).collect();
    let set: BTreeSet<_> = stored.iter().copied().collect();
    assert_eq!(set.len(), stored.len(), "an agent is stored twice");
    acknowledged.difference(&set).copied().collect()
}
