//! The handle under many orders of its threads: the real balancer, whose lock lets other threads
//! run before it is taken and after it is given back. Only in tests.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use chrono::Utc;
use futures_util::task::noop_waker;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeStatus};

use super::permit::Outcome;
use super::*;
use crate::registry::lease::LeasePolicy;
use crate::storage::agent::StoredAgent;
use crate::storage::memory::MemoryStore;
use crate::storage::writer::Writer;

const ORDERS: usize = 1_000;
const MODEL: &str = "model:latest";

thread_local! {
    /// Whether a scheduler decides what runs on this thread.
    static IS_SCHEDULED: Cell<bool> = const { Cell::new(false) };
}

/// A lock around which others may run.
pub(super) struct Mutex<T>(parking_lot::Mutex<T>);

pub(super) struct MutexGuard<'a, T>(Option<parking_lot::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(super) fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        let_others_run();
        MutexGuard(Some(self.0.lock()))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().expect("it is held until it is dropped")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0
            .as_deref_mut()
            .expect("it is held until it is dropped")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.0 = None;
        let_others_run();
    }
}

fn let_others_run() {
    if IS_SCHEDULED.get() && !std::thread::panicking() {
        shuttle::thread::yield_now();
    }
}

/// What a client does when all slots are taken.
#[derive(Debug, Clone, Copy)]
enum Client {
    Waits,
    Leaves,
    LooksAgainAndLeaves,
}

#[test]
fn no_slot_is_given_twice_and_everybody_who_waits_is_served() {
    in_many_orders(|writer| play(writer, 1, &[Client::Waits; 3]));
    in_many_orders(|writer| play(writer, 2, &[Client::Waits; 4]));
}

#[test]
fn whoever_leaves_the_queue_takes_nobodys_turn_away() {
    let clients = [
        Client::Waits,
        Client::Leaves,
        Client::LooksAgainAndLeaves,
        Client::Waits,
    ];
    in_many_orders(move |writer| play(writer, 1, &clients));
    in_many_orders(move |writer| play(writer, 2, &[clients, clients].concat()));
}

#[test]
#[should_panic(expected = "slots are in use")]
fn slot_that_is_given_twice_would_be_seen() {
    in_many_orders(|writer| play_on(&balancer(writer, 2), 1, &[Client::Waits; 2]));
}

fn in_many_orders(play: impl Fn(&Writer) + Send + Sync + 'static) {
    let (writer, thread) = Writer::start(Box::new(MemoryStore::default()));
    IS_SCHEDULED.set(true);
    shuttle::check_random(move || play(&writer), ORDERS);
    IS_SCHEDULED.set(false);
    thread.join();
}

/// Lets clients ask at once, and looks at what is left when all of them are done.
fn play(writer: &Writer, capacity: u32, clients: &[Client]) {
    play_on(&balancer(writer, capacity), capacity, clients);
}

fn play_on(balancer: &Balancer, capacity: u32, clients: &[Client]) {
    let in_use = Arc::new(AtomicU32::new(0));
    let threads: Vec<_> = (0..)
        .zip(clients.iter().copied())
        .map(|(number, client)| {
            let (balancer, in_use) = (balancer.clone(), Arc::clone(&in_use));
            shuttle::thread::spawn(move || ask(&balancer, number, client, (&in_use, capacity)))
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let totals = balancer.totals();
    assert_eq!((totals.in_flight, totals.queued), (0, 0));
    let shown = balancer.0.registry.snapshot();
    assert!(shown.iter().all(|agent| agent.in_flight == 0), "{shown:?}");
    assert!(balancer.0.core.lock().wakers.is_empty());
}

fn ask(balancer: &Balancer, number: u64, client: Client, slots: (&AtomicU32, u32)) {
    match balancer.acquire(wanted(number)).unwrap() {
        Acquired::Ready(permit) => serve(permit, number, slots),
        Acquired::Queued(waiter) => match client {
            Client::Waits => serve(shuttle::future::block_on(waiter).unwrap(), number, slots),
            Client::Leaves => drop(waiter),
            Client::LooksAgainAndLeaves => {
                let mut waiter = pin!(waiter);
                let waker = noop_waker();
                let looked = waiter.as_mut().poll(&mut Context::from_waker(&waker));
                if let Poll::Ready(permit) = looked {
                    serve(permit.unwrap(), number, slots);
                }
                let_others_run();
            }
        },
    }
}

fn serve(permit: Permit, number: u64, (in_use, capacity): (&AtomicU32, u32)) {
    let used = in_use.fetch_add(1, Ordering::SeqCst) + 1;
    assert!(used <= capacity, "{used} of {capacity} slots are in use");
    let_others_run();
    in_use.fetch_sub(1, Ordering::SeqCst);
    if number.is_multiple_of(2) {
        permit.settle(Outcome::Success, None);
    }
}

fn wanted(client: u64) -> Wanted<'static> {
    Wanted {
        model: MODEL,
        ollama_only: false,
        only: &[],
        tried: &[],
        client,
        prefix: None,
    }
}

/// Makes a balancer over one agent that has the model and so many slots.
fn balancer(writer: &Writer, capacity: u32) -> Balancer {
    let id = AgentId::from_u128(1);
    let mut agent = StoredAgent::new(id, "gpu", ([127, 0, 0, 1].into(), 1), Utc::now());
    agent.runtime.status = RuntimeStatus::Running;
    agent.runtime.models = vec![Model::named(MODEL)];
    agent.capacity = std::num::NonZeroU32::new(capacity);
    agent.verified = true;
    let policy = LeasePolicy {
        interval: Duration::from_secs(1),
        fixed_ttl: None,
    };
    let registry = Registry::new(policy, writer.clone(), vec![agent], None);
    Balancer::new(registry, Settings::default())
}
