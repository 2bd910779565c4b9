//! Measures how long it takes to claim a slot and to give it back:
//! `cargo run --release --package ollama-coordinator --example pick_speed`.
#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::sync::Arc;

use ollama_coordinator::balancer::Wanted;
use ollama_coordinator::balancer::facts::AgentFacts;
use ollama_coordinator::balancer::permit::Outcome;
use ollama_coordinator::balancer::policy::Policy;
use ollama_coordinator::balancer::state::{Acquisition, Settings, State};
use ollama_coordinator::registry::agent::Link;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{LoadedModel, Model};
use tokio::time::Instant;

const ROUNDS: u32 = 200_000;
const POLICIES: [Policy; 4] = [
    Policy::LeastLoaded,
    Policy::RoundRobin,
    Policy::Weighted,
    Policy::PrefixAffinity,
];

fn main() {
    println!("agents  warm    policy           ns per acquire and settle  us per agent to join");
    for agents in [10, 64, 1_000, 10_000] {
        for warm in [agents, agents / 10] {
            for policy in POLICIES {
                measure(agents, warm, policy);
            }
        }
    }
}

fn measure(agents: u32, warm: u32, policy: Policy) {
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    let mut state = State::new(settings, 1);
    let begun = Instant::now();
    for number in 0..agents {
        join(&mut state, number, number < warm);
    }
    let joining = begun.elapsed().as_secs_f64() * 1e6 / f64::from(agents);
    let begun = Instant::now();
    let mut held = std::collections::VecDeque::new();
    for round in 0..ROUNDS {
        let wanted = Wanted {
            model: "llama3.2:latest",
            ollama_only: true,
            only: &[],
            tried: &[],
            client: 0,
            prefix: Some(u64::from(round % 1_000)),
        };
        let now = Instant::now();
        if let Ok(Acquisition::Ready(grant)) = state.acquire(&wanted, now) {
            held.push_back(grant);
        }
        // Half of the fleet has something to do.
        if held.len() > agents as usize / 2
            && let Some(grant) = held.pop_front()
        {
            state.settle(grant.claim, Outcome::Success, None, Instant::now());
        }
    }
    let each = begun.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS);
    println!("{agents:6}  {warm:6}  {policy:<16} {each:26.0}  {joining:20.1}");
}

fn join(state: &mut State, number: u32, is_warm: bool) {
    let models: Vec<Model> = (0..9)
        .map(|other| Model::named(format!("other-{other}:latest")))
        .chain([Model::named("llama3.2:latest")])
        .collect();
    let loaded = LoadedModel {
        name: "llama3.2:latest".to_owned(),
        size: None,
        size_vram: None,
        expires_at: None,
        context_length: None,
    };
    let facts = AgentFacts {
        id: AgentId::from_u128(u128::from(number)),
        name: "gpu",
        link: Link::Direct(([127, 0, 0, 1], 9).into()),
        speaks_ollama: true,
        in_flight: &Arc::default(),
        is_routable: true,
        is_suspect: false,
        capacity: 4,
        free_memory: None,
        models: &models,
        loaded_models: if is_warm { &[loaded] } else { &[] },
        registrations: 1,
    };
    state.upsert(&facts, Instant::now());
}
