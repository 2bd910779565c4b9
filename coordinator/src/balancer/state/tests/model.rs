//! Any sequence of events keeps the promises of the balancer.

use proptest::prelude::*;

use super::super::look::Sight;
use super::*;
use crate::balancer::policy::Policy;

const MODELS: [&str; 3] = ["a:latest", "b:latest", "c:latest"];

#[derive(Debug, Clone)]
struct Asked {
    model: usize,
    client: u64,
    tried: Vec<u128>,
    only: Vec<u128>,
    prefix: Option<u64>,
}

#[derive(Debug, Clone)]
enum Step {
    Join(Machine),
    Forget(u128),
    Acquire(Asked),
    Answer(usize),
    Settle(usize, Outcome),
    Cancel(usize),
    Collect(usize),
    Pass(u64),
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::Success),
        1 => Just(Outcome::Cancelled),
        1 => Just(Outcome::Failure(Failure::NotConnected)),
        1 => Just(Outcome::Failure(Failure::Broken)),
        1 => Just(Outcome::Failure(Failure::Status(500))),
        1 => Just(Outcome::Failure(Failure::Busy)),
        1 => Just(Outcome::Failure(Failure::NoModel)),
    ]
}

fn machine() -> impl Strategy<Value = Machine> {
    let models = proptest::sample::subsequence(MODELS.to_vec(), 0..=3);
    let loaded = proptest::sample::subsequence(MODELS.to_vec(), 0..=3);
    (0_u128..5, 1_u32..4, models, loaded, 0_u8..8, 0_u64..3).prop_map(
        |(number, capacity, models, loaded, flags, registrations)| {
            let mut machine = Machine::new(number, capacity)
                .with_models(&models)
                .with_loaded(&loaded);
            machine.is_routable = flags != 0;
            machine.speaks_ollama = flags != 1;
            machine.is_suspect = flags == 2;
            machine.registrations = registrations;
            machine
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let some =
        || prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(0_u128..5, 1..3)];
    let acquire = (
        0..MODELS.len(),
        0_u64..3,
        some(),
        some(),
        any::<Option<u64>>(),
    );
    prop_oneof![
        3 => machine().prop_map(Step::Join),
        1 => (0_u128..5).prop_map(Step::Forget),
        8 => acquire.prop_map(|(model, client, tried, only, prefix)| {
            Step::Acquire(Asked { model, client, tried, only, prefix })
        }),
        3 => any::<usize>().prop_map(Step::Answer),
        5 => (any::<usize>(), outcome()).prop_map(|(which, outcome)| Step::Settle(which, outcome)),
        2 => any::<usize>().prop_map(Step::Cancel),
        3 => any::<usize>().prop_map(Step::Collect),
        3 => (0_u64..40_000).prop_map(Step::Pass),
    ]
}

/// The state and what callers hold of it.
struct World {
    bench: Bench,
    held: Vec<Grant>,
    tickets: Vec<TicketId>,
}

impl World {
    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Join(machine) => self.bench.upsert(&machine),
            Step::Forget(number) => {
                let id = AgentId::from_u128(number);
                self.bench.state.forget(id, self.bench.now);
            }
            Step::Acquire(ask) => self.acquire(&ask)?,
            Step::Answer(which) => {
                if !self.held.is_empty() {
                    let which = which % self.held.len();
                    let claim = &mut self.held[which].claim;
                    self.bench.state.answered(claim, self.bench.now);
                }
            }
            Step::Settle(which, outcome) => {
                if !self.held.is_empty() {
                    let grant = self.held.swap_remove(which % self.held.len());
                    self.bench.settle(grant, outcome);
                }
            }
            Step::Cancel(which) => {
                if !self.tickets.is_empty() {
                    let ticket = self.tickets.swap_remove(which % self.tickets.len());
                    self.bench.state.cancel(ticket, self.bench.now);
                }
            }
            Step::Collect(which) => {
                if !self.tickets.is_empty() {
                    let index = which % self.tickets.len();
                    if let Some(settled) = self.bench.state.collect(self.tickets[index]) {
                        self.tickets.swap_remove(index);
                        if let Ok(grant) = settled {
                            self.held.push(grant);
                        }
                    }
                }
            }
            Step::Pass(ms) => self.bench.pass(Duration::from_millis(ms)),
        }
        Ok(())
    }

    fn acquire(&mut self, asked: &Asked) -> Result<(), TestCaseError> {
        let ids = |ids: &[u128]| -> Vec<AgentId> {
            ids.iter().copied().map(AgentId::from_u128).collect()
        };
        let (tried, only) = (ids(&asked.tried), ids(&asked.only));
        let wanted = Wanted {
            model: MODELS[asked.model],
            ollama_only: false,
            only: &only,
            tried: &tried,
            client: asked.client,
            prefix: asked.prefix,
        };
        match self.bench.acquire(&wanted) {
            Ok(Acquisition::Ready(grant)) => {
                prop_assert!(!tried.contains(&grant.agent.id));
                prop_assert!(only.is_empty() || only.contains(&grant.agent.id));
                self.hold(grant)?;
            }
            Ok(Acquisition::Queued(ticket)) => self.tickets.push(ticket),
            Err(_) => {}
        }
        Ok(())
    }

    fn hold(&mut self, grant: Grant) -> Result<(), TestCaseError> {
        let slot = &self.bench.state.fleet.slots[grant.claim.slot];
        prop_assert!(slot.is_routable && slot.in_flight <= slot.capacity);
        if grant.choice.reason == Reason::Probation {
            prop_assert_eq!(slot.in_flight, 1);
        }
        self.held.push(grant);
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let state = &mut self.bench.state;
        let now = self.bench.now;
        let mut served = vec![0; state.fleet.slots.len()];
        let mut awaited = served.clone();
        for grant in self.held.iter().chain(state.granted()) {
            served[grant.claim.slot] += 1;
            awaited[grant.claim.slot] += u32::from(grant.claim.is_awaited);
        }
        for (slot, (served, awaited)) in state.fleet.slots.iter().zip(served.iter().zip(&awaited)) {
            prop_assert_eq!(slot.in_flight, *served);
            prop_assert_eq!(slot.doubt.unanswered(), *awaited);
            prop_assert_eq!(slot.agent.in_flight.load(Ordering::Relaxed), *served);
        }
        prop_assert_eq!(
            state.in_flight,
            usize::try_from(served.iter().sum::<u32>()).unwrap()
        );
        let waiting: usize = state.fleet.pools.iter().map(|pool| pool.queue.len()).sum();
        prop_assert_eq!(state.queued, waiting);
        state.fleet.check(now);
        for (ticket, pool) in state.waiting() {
            let sight = state.sight_of(ticket, pool, now);
            prop_assert!(
                !matches!(sight, Sight::Found(..)),
                "ticket {ticket} waits for {pool} in vain: {sight:?}"
            );
        }
        Ok(())
    }

    fn end(mut self) -> Result<(), TestCaseError> {
        for ticket in self.tickets.drain(..) {
            self.bench.state.cancel(ticket, self.bench.now);
        }
        for grant in self.held.drain(..) {
            self.bench.settle(grant, Outcome::Success);
        }
        for number in 0..5 {
            let id = AgentId::from_u128(number);
            self.bench.state.forget(id, self.bench.now);
        }
        self.check()?;
        let state = &self.bench.state;
        prop_assert_eq!(
            (state.in_flight, state.queued, state.tickets.len()),
            (0, 0, 0)
        );
        prop_assert!(state.fleet.is_empty(), "{:?}", state.fleet);
        Ok(())
    }
}

fn policy() -> impl Strategy<Value = Policy> {
    prop_oneof![
        Just(Policy::LeastLoaded),
        Just(Policy::RoundRobin),
        Just(Policy::Weighted),
        Just(Policy::PrefixAffinity),
    ]
}

proptest! {
    #[test]
    fn no_slot_is_given_twice_and_nobody_waits_for_a_free_one(
        policy in policy(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let settings = Settings { policy, queue_length: 8, ..Settings::default() };
        let mut world = World {
            bench: Bench::with(settings, &[]),
            held: Vec::new(),
            tickets: Vec::new(),
        };
        for step in steps {
            world.take(step)?;
            world.check()?;
        }
        world.end()?;
    }
}
