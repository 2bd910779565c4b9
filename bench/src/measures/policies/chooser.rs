//! Who decides where a request goes: the coordinator's balancer, or a chooser that knows nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use ollama_coordinator::balancer::Wanted;
use ollama_coordinator::balancer::facts::AgentFacts;
use ollama_coordinator::balancer::permit::{Outcome, Pace};
use ollama_coordinator::balancer::policy::{Policy, mixed};
use ollama_coordinator::balancer::state::{Acquisition, Claim, Grant, Settings, State};
use ollama_coordinator::registry::agent::Link;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{LoadedModel, Model};
use tokio::time::Instant;

use super::world::{Dice, MACHINES, MODELS, Request};

const GIGABYTE: u64 = 1_000_000_000;

/// A way to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Any machine that has the model.
    BlindRandom,
    /// The machines that have the model in turn.
    BlindTurns,
    /// What the coordinator does.
    Balancer(Policy),
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Machine(usize),
    Queue,
    Nowhere,
}

/// Sends requests to machines.
#[derive(Debug)]
pub(super) enum Chooser {
    Random(Dice),
    Turns([usize; MODELS.len()]),
    Balancer(Box<Balancer>),
}

impl Chooser {
    pub(super) fn new(way: Way, seed: u64) -> Self {
        match way {
            Way::BlindRandom => Self::Random(Dice::new(seed)),
            Way::BlindTurns => Self::Turns([0; MODELS.len()]),
            Way::Balancer(policy) => Self::Balancer(Box::new(Balancer::new(policy, seed))),
        }
    }

    /// Decides about a request that has just come.
    pub(super) fn place(&mut self, number: usize, request: &Request, now: f64) -> Place {
        let owners: Vec<usize> = (0..MACHINES.len())
            .filter(|machine| MACHINES[*machine].models.contains(&request.model))
            .collect();
        match self {
            Self::Random(dice) => Place::Machine(owners[dice.below(owners.len())]),
            Self::Turns(turns) => {
                let turn = &mut turns[request.model];
                *turn += 1;
                Place::Machine(owners[*turn % owners.len()])
            }
            Self::Balancer(balancer) => balancer.place(number, request, now),
        }
    }

    /// Hears that a machine has begun to answer a request.
    pub(super) fn began(&mut self, number: usize, now: f64) {
        if let Self::Balancer(balancer) = self {
            balancer.began(number, now);
        }
    }

    /// Hears that a machine is done with a request.
    pub(super) fn ended(&mut self, number: usize, pace: Option<Pace>, now: f64) {
        if let Self::Balancer(balancer) = self {
            balancer.ended(number, pace, now);
        }
    }

    /// Hears what a machine has in memory.
    pub(super) fn heard(&mut self, machine: usize, loaded: &[usize], now: f64) {
        if let Self::Balancer(balancer) = self {
            balancer.report(machine, loaded, now);
        }
    }

    /// Returns the requests that wait no more.
    pub(super) fn woken(&mut self) -> Vec<(usize, Place)> {
        match self {
            Self::Random(_) | Self::Turns(_) => Vec::new(),
            Self::Balancer(balancer) => balancer.woken(),
        }
    }

    /// Returns when it has something to do by itself.
    pub(super) fn deadline(&self) -> f64 {
        let Self::Balancer(balancer) = self else {
            return f64::INFINITY;
        };
        let due = balancer.state.next_deadline();
        due.map_or(f64::INFINITY, |due| (due - balancer.base).as_secs_f64())
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: f64) {
        if let Self::Balancer(balancer) = self {
            let now = balancer.at(now);
            balancer.state.advance(now);
        }
    }

    /// Returns how many requests it counts as being served or waiting.
    #[cfg(test)]
    pub(super) fn open(&self) -> usize {
        match self {
            Self::Random(_) | Self::Turns(_) => 0,
            Self::Balancer(balancer) => balancer.state.in_flight() + balancer.state.queued(),
        }
    }
}

/// The coordinator's own decisions under a simulated clock.
#[derive(Debug)]
pub(super) struct Balancer {
    state: State,
    base: Instant,
    ids: Vec<AgentId>,
    in_flight: Vec<Arc<AtomicU32>>,
    claims: HashMap<usize, Claim>,
    tickets: HashMap<u64, usize>,
}

impl Balancer {
    fn new(policy: Policy, seed: u64) -> Self {
        let settings = Settings {
            policy,
            ..Settings::default()
        };
        let mut balancer = Self {
            state: State::new(settings, mixed(seed)),
            base: Instant::now(),
            ids: (1..).map(AgentId::from_u128).take(MACHINES.len()).collect(),
            in_flight: MACHINES.iter().map(|_| Arc::default()).collect(),
            claims: HashMap::new(),
            tickets: HashMap::new(),
        };
        for machine in 0..MACHINES.len() {
            balancer.report(machine, &[], 0.0);
        }
        balancer
    }

    /// Deadlines have whole nanoseconds, so that simulated time that reaches one has passed it.
    fn at(&self, now: f64) -> Instant {
        self.base + Duration::from_secs_f64(now)
    }

    fn report(&mut self, machine: usize, loaded: &[usize], now: f64) {
        let spec = &MACHINES[machine];
        let models: Vec<Model> = spec.models.iter().map(|model| described(*model)).collect();
        let taken: u64 = loaded.iter().map(|model| bytes(*model)).sum();
        let loaded: Vec<LoadedModel> = loaded.iter().map(|model| in_memory(*model)).collect();
        let facts = AgentFacts {
            id: self.ids[machine],
            name: "machine",
            link: Link::Direct(([127, 0, 0, 1], 9).into()),
            speaks_ollama: true,
            in_flight: &self.in_flight[machine],
            is_routable: true,
            is_suspect: false,
            capacity: spec.slots,
            free_memory: Some((u64::from(spec.gigabytes) * GIGABYTE).saturating_sub(taken)),
            models: &models,
            loaded_models: &loaded,
            registrations: 1,
        };
        self.state
            .upsert(&facts, self.base + Duration::from_secs_f64(now));
    }

    fn place(&mut self, number: usize, request: &Request, now: f64) -> Place {
        let wanted = Wanted {
            model: MODELS[request.model].name,
            ollama_only: false,
            only: &[],
            tried: &[],
            client: request.client,
            prefix: Some(mixed(request.conversation.into())),
        };
        let now = self.at(now);
        match self.state.acquire(&wanted, now) {
            Ok(Acquisition::Ready(grant)) => self.take(number, grant),
            Ok(Acquisition::Queued(ticket)) => {
                self.tickets.insert(ticket, number);
                Place::Queue
            }
            Err(_) => Place::Nowhere,
        }
    }

    fn take(&mut self, number: usize, grant: Grant) -> Place {
        let machine = self.ids.iter().position(|id| *id == grant.agent.id);
        self.claims.insert(number, grant.claim);
        machine.map_or(Place::Nowhere, Place::Machine)
    }

    fn began(&mut self, number: usize, now: f64) {
        let now = self.at(now);
        if let Some(claim) = self.claims.get_mut(&number) {
            self.state.answered(claim, now);
        }
    }

    fn ended(&mut self, number: usize, pace: Option<Pace>, now: f64) {
        if let Some(claim) = self.claims.remove(&number) {
            let outcome = pace.map_or(Outcome::Cancelled, |_| Outcome::Success);
            let now = self.at(now);
            self.state.settle(claim, outcome, pace, now);
        }
    }

    fn woken(&mut self) -> Vec<(usize, Place)> {
        let mut places = Vec::new();
        for ticket in self.state.take_woken() {
            let settled = self.state.collect(ticket);
            if let (Some(number), Some(settled)) = (self.tickets.remove(&ticket), settled) {
                let place = settled.map_or(Place::Nowhere, |grant| self.take(number, grant));
                places.push((number, place));
            }
        }
        places
    }
}

fn bytes(model: usize) -> u64 {
    u64::from(MODELS[model].gigabytes) * GIGABYTE
}

fn described(model: usize) -> Model {
    Model {
        size: Some(bytes(model)),
        ..Model::named(MODELS[model].name)
    }
}

fn in_memory(model: usize) -> LoadedModel {
    LoadedModel {
        name: MODELS[model].name.to_owned(),
        size: Some(bytes(model)),
        size_vram: Some(bytes(model)),
        expires_at: None,
        context_length: None,
    }
}
