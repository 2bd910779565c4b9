//! The whole balancer under a clock that the test moves.

use std::sync::atomic::{AtomicU32, Ordering};

use ollama_coordinator_common::protocol::runtime::{LoadedModel, Model};

use super::super::choice::{Reason, WhyNot};
use super::super::permit::Failure;
use super::*;
use crate::registry::agent::Link;

mod doubting;
mod ejecting;
mod large;
mod model;
mod queueing;

/// An agent as a test wants it.
#[derive(Debug, Clone)]
struct Machine {
    number: u128,
    capacity: u32,
    models: Vec<Model>,
    loaded: Vec<LoadedModel>,
    free_memory: Option<u64>,
    speaks_ollama: bool,
    is_routable: bool,
    is_suspect: bool,
    registrations: u64,
    in_flight: Arc<AtomicU32>,
}

impl Machine {
    fn new(number: u128, capacity: u32) -> Self {
        Self {
            number,
            capacity,
            models: vec![Model::named("m:latest")],
            loaded: Vec::new(),
            free_memory: None,
            speaks_ollama: true,
            is_routable: true,
            is_suspect: false,
            registrations: 1,
            in_flight: Arc::default(),
        }
    }

    fn with_models(mut self, names: &[&str]) -> Self {
        self.models = names.iter().copied().map(Model::named).collect();
        self
    }

    fn with_loaded(mut self, names: &[&str]) -> Self {
        let loaded = |name: &&str| LoadedModel {
            name: (*name).to_owned(),
            size: None,
            size_vram: None,
            expires_at: None,
            context_length: None,
        };
        self.loaded = names.iter().map(loaded).collect();
        self
    }

    fn id(&self) -> AgentId {
        AgentId::from_u128(self.number)
    }

    fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn facts(&self) -> AgentFacts<'_> {
        AgentFacts {
            id: self.id(),
            name: "gpu",
            link: Link::Direct(([127, 0, 0, 1], 9).into()),
            speaks_ollama: self.speaks_ollama,
            in_flight: &self.in_flight,
            is_routable: self.is_routable,
            is_suspect: self.is_suspect,
            capacity: self.capacity,
            free_memory: self.free_memory,
            models: &self.models,
            loaded_models: &self.loaded,
            registrations: self.registrations,
        }
    }
}

/// A state and its clock.
struct Bench {
    state: State,
    now: Instant,
}

impl Bench {
    fn new(machines: &[&Machine]) -> Self {
        Self::with(Settings::default(), machines)
    }

    fn with(settings: Settings, machines: &[&Machine]) -> Self {
        let mut bench = Self {
            state: State::new(settings, 1),
            now: Instant::now(),
        };
        for machine in machines {
            bench.upsert(machine);
        }
        bench
    }

    fn upsert(&mut self, machine: &Machine) {
        self.state.upsert(&machine.facts(), self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.advance(self.now);
    }

    fn acquire(&mut self, wanted: &Wanted<'_>) -> Result<Acquisition, AcquireError> {
        self.state.acquire(wanted, self.now)
    }

    fn grant(&mut self, wanted: &Wanted<'_>) -> Grant {
        match self.acquire(wanted) {
            Ok(Acquisition::Ready(grant)) => grant,
            other => panic!("an agent is free: {other:?}"),
        }
    }

    fn queued(&mut self, wanted: &Wanted<'_>) -> TicketId {
        match self.acquire(wanted) {
            Ok(Acquisition::Queued(ticket)) => ticket,
            other => panic!("nobody is free: {other:?}"),
        }
    }

    fn settle(&mut self, grant: Grant, outcome: Outcome) {
        self.state.settle(grant.claim, outcome, None, self.now);
    }

    fn fail(&mut self, grant: Grant, failure: Failure) {
        self.settle(grant, Outcome::Failure(failure));
    }

    /// Returns who was given a slot, if that has happened.
    fn served(&mut self, ticket: TicketId) -> Option<Grant> {
        let settled = self.state.collect(ticket)?;
        Some(settled.expect("it did not wait in vain"))
    }
}

fn wanted(model: &str) -> Wanted<'_> {
    Wanted {
        model,
        ollama_only: false,
        only: &[],
        tried: &[],
        client: 0,
        prefix: None,
    }
}

#[test]
fn warm_agent_is_taken_until_it_is_full() {
    let (cold, warm) = (
        Machine::new(1, 8),
        Machine::new(2, 2).with_loaded(&["m:latest"]),
    );
    let mut bench = Bench::new(&[&cold, &warm]);

    let grants: Vec<Grant> = (0..3).map(|_| bench.grant(&wanted("m"))).collect();

    let taken: Vec<AgentId> = grants.iter().map(|grant| grant.agent.id).collect();
    assert_eq!(taken, [warm.id(), warm.id(), cold.id()]);
    let reasons: Vec<Reason> = grants.iter().map(|grant| grant.choice.reason).collect();
    assert_eq!(reasons, [Reason::Warm, Reason::Warm, Reason::Only]);
    assert_eq!((cold.in_flight(), warm.in_flight()), (1, 2));
    let last = &grants[2].choice.considered;
    assert_eq!(last[1].why_not, Some(WhyNot::Full));
    assert_eq!((last[1].in_flight, last[1].capacity), (2, 2));
}

#[test]
fn agent_that_was_just_sent_a_request_counts_as_warm_until_it_reports_otherwise() {
    let (one, other) = (Machine::new(1, 4), Machine::new(2, 4));
    let mut bench = Bench::new(&[&one, &other]);
    let first = bench.grant(&wanted("m"));
    let home = first.agent.id;
    bench.settle(first, Outcome::Success);

    for _ in 0..20 {
        let grant = bench.grant(&wanted("m"));
        assert_eq!(grant.agent.id, home);
        bench.settle(grant, Outcome::Success);
    }
    // What it had in memory before must have changed for it to report.
    let loaded_other = |machine: &Machine| {
        let machine = machine.clone().with_models(&["m:latest", "n:latest"]);
        machine.with_loaded(&["n:latest"])
    };
    bench.upsert(&loaded_other(if home == one.id() { &one } else { &other }));
    let grants: Vec<Grant> = (0..2).map(|_| bench.grant(&wanted("m"))).collect();

    assert!(!grants[0].choice.considered[0].warm);
}

#[test]
fn model_is_not_taken_to_be_in_memory_for_ever() {
    let (one, other) = (Machine::new(1, 1), Machine::new(2, 1));
    let mut bench = Bench::new(&[&one, &other]);
    let grant = bench.grant(&wanted("m"));
    bench.settle(grant, Outcome::Success);

    bench.pass(Duration::from_mins(5));

    let grant = bench.grant(&wanted("m"));
    assert_eq!(grant.choice.reason, Reason::Random, "both are cold again");
}

#[test]
fn model_that_fits_is_not_squeezed_into_another_machine() {
    let large = Model {
        size: Some(20),
        ..Model::named("m:latest")
    };
    let mut small = Machine::new(1, 4);
    let mut roomy = Machine::new(2, 1);
    let mut silent = Machine::new(3, 4);
    (small.free_memory, roomy.free_memory) = (Some(10), Some(30));
    for machine in [&mut small, &mut roomy, &mut silent] {
        machine.models = vec![large.clone()];
    }
    let mut bench = Bench::new(&[&small, &roomy, &silent]);

    let order: Vec<AgentId> = (0..3)
        .map(|number| {
            let grant = bench.grant(&wanted("m"));
            // The one that has it now would be taken as long as it is free.
            if number > 0 {
                let id = grant.agent.id;
                bench.state.forget(id, bench.now);
                return id;
            }
            grant.agent.id
        })
        .collect();

    assert_eq!(order, [roomy.id(), silent.id(), small.id()]);
}

#[test]
fn names_are_taken_as_the_runtimes_take_them() {
    let ollama = Machine::new(1, 4).with_models(&["Llama3:latest"]);
    let mut openai = Machine::new(2, 4).with_models(&["Qwen/Qwen3", "llama3", "phi:latest"]);
    openai.speaks_ollama = false;
    let mut bench = Bench::new(&[&ollama, &openai]);
    let mut who = |model: &str| match bench.acquire(&wanted(model)) {
        Ok(Acquisition::Ready(grant)) => {
            let who = grant.agent.id;
            bench.settle(grant, Outcome::Cancelled);
            Some(who)
        }
        Ok(Acquisition::Queued(_)) => panic!("nobody is busy"),
        Err(error) => {
            assert_eq!(error, AcquireError::NoSuchModel);
            None
        }
    };

    assert_eq!(who("llama3:latest"), Some(ollama.id()));
    assert_eq!(who("LLAMA3"), Some(ollama.id()));
    assert_eq!(who("library/llama3:latest"), Some(ollama.id()));
    let in_full = "registry.ollama.ai/library/llama3";
    assert_eq!(who(in_full), Some(ollama.id()));
    assert!(who("llama3").is_some());
    assert_eq!(who("Qwen/Qwen3"), Some(openai.id()));
    assert_eq!(who("phi"), Some(openai.id()));
    assert_eq!(who("qwen/qwen3"), None, "such servers mind the case");
    assert_eq!(who("llama3:7b"), None);
}

#[test]
fn refusals_say_what_is_missing() {
    let mut offline = Machine::new(1, 4).with_models(&["off:latest"]);
    offline.is_routable = false;
    let mut openai = Machine::new(2, 4).with_models(&["open"]);
    openai.speaks_ollama = false;
    let plain = Machine::new(3, 4);
    let mut bench = Bench::new(&[&offline, &openai, &plain]);
    let mut error = |wanted: Wanted<'_>| bench.acquire(&wanted).err();
    let ollama_only = |model| Wanted {
        ollama_only: true,
        ..wanted(model)
    };
    let (tried, named) = ([plain.id()], [openai.id()]);

    assert_eq!(error(wanted("nobody")), Some(AcquireError::NoSuchModel));
    assert_eq!(error(wanted("off")), Some(AcquireError::NotRoutable));
    assert_eq!(error(ollama_only("open")), Some(AcquireError::OtherApi));
    let exhausted = Wanted {
        tried: &tried,
        ..wanted("m")
    };
    assert_eq!(error(exhausted), Some(AcquireError::Exhausted));
    let not_there = Wanted {
        only: &named,
        ..wanted("m")
    };
    assert_eq!(error(not_there), Some(AcquireError::NotThere));
}

#[test]
fn fast_machine_is_found_by_its_answers() {
    let warm = |number| Machine::new(number, 4).with_loaded(&["m:latest"]);
    let (slow, fast) = (warm(1), warm(2));
    let mut bench = Bench::new(&[&slow, &fast]);
    let pace = |grant: &Grant| Pace {
        first_byte: Duration::ZERO,
        chunks: 100,
        streaming: Duration::from_millis(if grant.agent.id == fast.id() {
            500
        } else {
            4_000
        }),
    };
    for _ in 0..50 {
        let both: Vec<Grant> = (0..8).map(|_| bench.grant(&wanted("m"))).collect();
        for grant in both {
            let pace = pace(&grant);
            bench
                .state
                .settle(grant.claim, Outcome::Success, Some(pace), bench.now);
        }
    }

    let taken: Vec<AgentId> = (0..4).map(|_| bench.grant(&wanted("m")).agent.id).collect();

    assert_eq!(taken, vec![fast.id(); 4]);
}

#[test]
fn forgotten_agent_is_counted_to_the_end_and_may_come_back_before() {
    let machine = Machine::new(1, 2);
    let mut bench = Bench::new(&[&machine]);
    let old = bench.grant(&wanted("m"));

    bench.state.forget(machine.id(), bench.now);
    assert_eq!(
        bench.acquire(&wanted("m")).err(),
        Some(AcquireError::NoSuchModel)
    );
    let mut back = machine;
    back.in_flight = Arc::default();
    bench.upsert(&back);

    assert_eq!(back.in_flight(), 1, "what it served before counts");
    let _second = bench.grant(&wanted("m"));
    bench.queued(&wanted("m"));
    bench.settle(old, Outcome::Success);
    assert_eq!(back.in_flight(), 2, "the slot went to the one who waited");
}
