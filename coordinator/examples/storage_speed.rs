//! Measures the registry's storage on the disk it is pointed at, without a journal and as it is:
//! `cargo run --release --example storage_speed -- [directory]`.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::json::{JsonStore, Limits};
use ollama_coordinator::storage::writer::Writer;
use ollama_coordinator::storage::{self, Change, Store as _};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::runtime::{LoadedModel, Model};
use ollama_coordinator_common::protocol::system::{Gpu, SystemInfo};
use ollama_coordinator_common::secret::AgentSecret;
use tokio::task::JoinSet;
use tokio::time::Instant;

const CLIENTS: u64 = 64;
const COMMITS: usize = 50;
const LOADS: usize = 7;
const DURATION: Duration = Duration::from_secs(3);
/// Never a journal, however large the fleet.
const WHOLE_FILE: Limits = Limits {
    small_file: u64::MAX,
    journal_percent: 100,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    println!(
        "agents  storage  bytes/agent  1 agent p50 ms  max ms  32 agents p50 ms  max ms  \
         load p50 ms  registrations/s (64 clients)"
    );
    for agents in [100, 1_000, 10_000, 100_000] {
        for limits in [WHOLE_FILE, Limits::default()] {
            let directory = tempfile::tempdir_in(&parent)?;
            measure(directory.path(), agents, limits).await?;
        }
    }
    Ok(())
}

async fn measure(directory: &Path, agents: u64, limits: Limits) -> anyhow::Result<()> {
    let open = || -> anyhow::Result<JsonStore> {
        let store = storage::open(directory, None)?;
        Ok(store.with_limits(limits))
    };
    let mut store = open()?;
    store.load()?;
    let everybody: Vec<_> = (0..agents).map(|number| put(number, 0)).collect();
    store.commit(&everybody)?;
    drop(everybody);
    let bytes = std::fs::metadata(directory.join(storage::json::FILE_NAME))?.len();

    let one = commits(&mut store, 1)?;
    let many = commits(&mut store, 32)?;
    drop(store);

    let mut loads = Vec::new();
    for _ in 0..LOADS {
        let started = Instant::now();
        let mut store = open()?;
        let loaded = store.load()?;
        loads.push(started.elapsed());
        anyhow::ensure!(loaded.agents.len() as u64 == agents);
    }
    loads.sort();

    let per_second = registrations_per_second(open()?, agents).await?;
    let storage = if limits == WHOLE_FILE {
        "whole"
    } else {
        "default"
    };
    println!(
        "{agents:6}  {storage:7}  {:11}  {:14.2}  {:6.2}  {:16.2}  {:6.2}  {:11.2}  {per_second:.0}",
        bytes / agents,
        ms(one[COMMITS / 2]),
        ms(*one.last().context("at least one commit")?),
        ms(many[COMMITS / 2]),
        ms(*many.last().context("at least one commit")?),
        ms(loads[LOADS / 2]),
    );
    Ok(())
}

/// Commits batches of `size` agents; returns how long that took, sorted.
fn commits(store: &mut JsonStore, size: u64) -> anyhow::Result<Vec<Duration>> {
    let mut commits = Vec::new();
    for round in 1..=COMMITS {
        let batch: Vec<_> = (0..size).map(|number| put(number, round)).collect();
        let started = Instant::now();
        store.commit(&batch)?;
        commits.push(started.elapsed());
    }
    commits.sort();
    Ok(commits)
}

/// Lets 64 clients register one after the other for a while, as changed agents.
async fn registrations_per_second(mut store: JsonStore, agents: u64) -> anyhow::Result<f64> {
    store.load()?;
    let (writer, thread) = Writer::start(Box::new(store));
    let started = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let writer = writer.clone();
        clients.spawn(async move {
            let mut round = 0;
            while started.elapsed() < DURATION {
                round += 1;
                let number = (client + round as u64 * CLIENTS) % agents;
                writer.commit(vec![put(number, round)]).await?;
            }
            anyhow::Ok(round)
        });
    }
    let mut total = 0;
    while let Some(done) = clients.join_next().await {
        total += done??;
    }
    let elapsed = started.elapsed();
    writer.stop();
    tokio::task::spawn_blocking(|| thread.join()).await?;
    Ok(f64::from(u32::try_from(total)?) / elapsed.as_secs_f64())
}

fn put(number: u64, round: usize) -> Change {
    let id = AgentId::from_u128(u128::from(number) << 64 | 0x9e37_79b9);
    let address = ([10, 1, 2, 3].into(), 11434);
    let mut agent = StoredAgent::new(id, format!("machine-{number}"), address, Utc::now());
    agent.runtime.version = Some("0.12.3".to_owned());
    agent.runtime.models = ["llama3.2:latest", "qwen3:8b"].map(Model::named).into();
    agent.runtime.loaded_models = vec![LoadedModel {
        name: "llama3.2:latest".to_owned(),
        size: Some(3_825_819_519),
        size_vram: Some(3_825_819_519),
        expires_at: None,
        context_length: Some(4096),
    }];
    agent.session = Some(SessionId::from_u128(round as u128));
    agent.epoch = round as u64;
    agent.secret_hash = Some(AgentSecret::hash(&secret()));
    agent.agent_version = Some("0.1.0".to_owned());
    agent.system_info = Some(SystemInfo {
        os: Some("Debian GNU/Linux 12".to_owned()),
        arch: Some("x86_64".to_owned()),
        cpu: Some("AMD Ryzen 9 7950X".to_owned()),
        cpu_cores: Some(32),
        memory_bytes: Some(67_108_864_000),
        gpus: Some(vec![Gpu {
            name: "NVIDIA GeForce RTX 4090".to_owned(),
            memory_bytes: Some(25_757_220_864),
            driver: None,
        }]),
    });
    Change::Put(Arc::new(agent))
}

fn secret() -> AgentSecret {
    "not-a-secret-of-anybody"
        .parse()
        .expect("it is long enough")
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
