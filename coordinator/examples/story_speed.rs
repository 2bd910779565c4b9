//! Measures what telling the story of a request costs, from its arrival to its end:
//! `cargo run --release --example story_speed`.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::hint::black_box;
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use chrono::Utc;
use ollama_coordinator::balancer::permit::{Outcome, Permit};
use ollama_coordinator::balancer::state::Settings;
use ollama_coordinator::balancer::{Acquired, Balancer, Wanted};
use ollama_coordinator::proxy::error::Dialect;
use ollama_coordinator::proxy::story::{StorySettings, Storybook, TraceSettings};
use ollama_coordinator::registry::Registry;
use ollama_coordinator::registry::lease::LeasePolicy;
use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::memory::MemoryStore;
use ollama_coordinator::storage::writer::Writer;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeStatus};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What the binary uses there.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const REQUESTS: u32 = 20_000;
const ROUNDS: usize = 300;
const MODEL: &str = "llama3.2:latest";
const TAIL: &str = concat!(
    r#"{"model":"llama3.2","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","#,
    r#""content":""},"done":true,"done_reason":"stop","total_duration":5043500667,"#,
    r#""load_duration":5025959,"prompt_eval_count":26,"prompt_eval_duration":325953000,"#,
    r#""eval_count":290,"eval_duration":4709213000}"#,
);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let registry = registry();
    let balancer = Balancer::new(registry.clone(), Settings::default());
    let traces = TraceSettings {
        endpoint: "http://127.0.0.1:9/v1/traces".to_owned(),
        service_name: "speed".to_owned(),
    };
    let kinds = [
        ("log off", 0, None),
        ("log of 1000", 1_000, None),
        ("log of 1000, traces (dropped)", 1_000, Some(traces)),
    ];
    println!("ns per request        one core   two at once");
    for (name, request_log, traces) in kinds {
        let settings = StorySettings {
            request_log,
            traces,
        };
        let storybook = Storybook::new(settings, registry.clone(), balancer.clone());
        let one = measure(&storybook, &balancer, 1).await?;
        let two = measure(&storybook, &balancer, 2).await?;
        println!("{name:<30} {one:>8.0} {two:>8.0}");
    }
    Ok(())
}

/// Returns the nanoseconds per request of the best round, each of so many tasks.
async fn measure(storybook: &Storybook, balancer: &Balancer, tasks: u32) -> anyhow::Result<f64> {
    let mut best = Duration::MAX;
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..tasks {
            let (storybook, mut permit) = (storybook.clone(), permit(balancer)?);
            running.spawn(async move { tell_many(&storybook, &mut permit) });
        }
        while let Some(done) = running.join_next().await {
            done?;
        }
        best = best.min(started.elapsed());
    }
    Ok(best.as_secs_f64() * 1e9 / f64::from(REQUESTS))
}

fn tell_many(storybook: &Storybook, permit: &mut Permit) {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_static("127.0.0.1:11400"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    let mut answer = HeaderMap::new();
    for _ in 0..REQUESTS {
        let client = [127, 0, 0, 1].into();
        let mut story = storybook.begin("POST", "/api/chat", &headers, client);
        story.asks_for(Dialect::Ollama, MODEL, true);
        story.attempt(permit);
        story.answered(StatusCode::OK, None);
        story.describe(&mut answer);
        black_box(&answer);
        story.ended(Outcome::Success, 10_000, 290, [b"", TAIL.as_bytes()]);
    }
}

fn permit(balancer: &Balancer) -> anyhow::Result<Permit> {
    let wanted = Wanted {
        model: MODEL,
        ollama_only: false,
        only: &[],
        tried: &[],
        client: 0,
        prefix: None,
    };
    match balancer.acquire(wanted)? {
        Acquired::Ready(permit) => Ok(permit),
        Acquired::Queued(_) => None.context("the agent is free"),
    }
}

/// Makes a registry that remembers one agent.
fn registry() -> Registry {
    let (writer, _thread) = Writer::start(Box::new(MemoryStore::default()));
    let address = ([127, 0, 0, 1].into(), 11434);
    let mut agent = StoredAgent::new(AgentId::new(), "gpu".to_owned(), address, Utc::now());
    agent.verified = true;
    agent.runtime.status = RuntimeStatus::Running;
    agent.runtime.models = vec![Model::named(MODEL)];
    let policy = LeasePolicy {
        interval: Duration::from_secs(1),
        fixed_ttl: None,
    };
    Registry::new(policy, writer, vec![agent], None)
}
