//! Which agents have which models, indexed both ways and changed in place. Pure.
//!
//! A slot is the place of an agent, a pool holds the members that have one model. An agent that was
//! forgotten keeps its slot until its last request has ended.

mod index;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use super::doubt::Doubt;
use super::ejection::{Ejection, Standing};
use super::facts::AgentFacts;
use super::queue::FairQueue;
use super::speed::Speed;
use crate::registry::agent::Candidate;
use crate::registry::snapshot::model_key;

/// How long a model that a request was sent for is taken to stay in memory, unless a report says
/// otherwise: Ollama's own default.
const STAYS_WARM: Duration = Duration::from_mins(5);

/// The agents and the models.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub(super) slots: Vec<Slot>,
    vacant_slots: Vec<usize>,
    by_id: HashMap<AgentId, usize>,
    pub(super) pools: Vec<Pool>,
    vacant_pools: Vec<usize>,
    /// By full name, and by the name without `:latest`: so most requests find theirs at once.
    by_name: HashMap<Box<str>, usize>,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) agent: Arc<Candidate>,
    pub(super) is_known: bool,
    pub(super) is_routable: bool,
    pub(super) capacity: u32,
    pub(super) in_flight: u32,
    pub(super) free_memory: Option<u64>,
    pub(super) busy_until: Option<Instant>,
    pub(super) ejection: Option<Box<Ejection>>,
    /// How often it was ejected.
    pub(super) ejections: u64,
    /// Whether the registry was told that it is ejected.
    pub(super) is_told_ejected: bool,
    pub(super) doubt: Doubt,
    registrations: u64,
    /// Its pools, sorted, and where it stands in each.
    places: Vec<(usize, usize)>,
}

/// The agents that have one model.
#[derive(Debug, Default)]
pub(super) struct Pool {
    name: Box<str>,
    pub(super) members: Vec<Member>,
    /// Slots of the members that are taken to have it in memory.
    pub(super) warm: Vec<usize>,
    pub(super) queue: FairQueue,
    pub(super) average: Speed,
    pub(super) turn: usize,
    claims: usize,
}

/// What is known of one agent and one model.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) slot: usize,
    pub(super) identity: u64,
    pub(super) size: Option<u64>,
    /// The only name under which a server other than Ollama knows it.
    pub(super) exact: Option<Box<str>>,
    is_loaded: bool,
    assumed_until: Option<Instant>,
    warm_at: Option<usize>,
    in_flight: u32,
    pub(super) no_model_until: Option<Instant>,
    /// Whether a timer runs that looks whether the model is still in memory.
    pub(super) is_watched: bool,
    pub(super) speed: Speed,
}

impl Slot {
    /// Returns what the agent may get.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let ejection = self.ejection.as_deref();
        ejection.map_or(Standing::Good, |ejection| ejection.standing(now))
    }

    /// Returns the pools of the models that it has.
    pub(super) fn pools(&self) -> impl Iterator<Item = usize> {
        self.places.iter().map(|(pool, _)| *pool)
    }

    /// Returns where it stands in a pool.
    pub(super) fn place_in(&self, pool: usize) -> Option<usize> {
        let found = self.places.binary_search_by_key(&pool, |place| place.0);
        found.ok().map(|index| self.places[index].1)
    }

    fn set_in_flight(&mut self, in_flight: u32) {
        self.in_flight = in_flight;
        self.agent.in_flight.store(in_flight, Ordering::Relaxed);
    }
}

impl Pool {
    /// Returns the model's full name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Member {
    /// Returns whether the agent knows the model under this name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.exact.as_deref().is_none_or(|exact| {
            exact == name
                || exact
                    .strip_suffix(":latest")
                    .is_some_and(|untagged| untagged == name)
        })
    }

    /// Returns when the model is no longer taken to be in memory if nothing else is heard.
    pub(super) fn cools_at(&self, now: Instant) -> Option<Instant> {
        self.assumed_until
            .filter(|until| !self.is_loaded && *until > now)
    }

    /// Returns whether the model is taken to be in the agent's memory.
    pub(super) fn is_warm(&self, now: Instant) -> bool {
        self.is_loaded || self.assumed_until.is_some_and(|until| now < until)
    }
}

impl Fleet {
    /// Returns the pool of a model.
    pub(super) fn pool_of(&self, model: &str) -> Option<usize> {
        let pool = self.by_name.get(model);
        pool.or_else(|| self.by_name.get(&*model_key(model)))
            .copied()
    }

    /// Returns the slot of an agent that is known.
    pub(super) fn slot_of(&self, id: AgentId) -> Option<usize> {
        let slot = self.by_id.get(&id).copied();
        slot.filter(|slot| self.slots[*slot].is_known)
    }

    /// Returns what is known of an agent and a model.
    pub(super) fn member_mut(&mut self, slot: usize, pool: usize) -> Option<&mut Member> {
        let place = self.slots[slot].place_in(pool)?;
        self.pools[pool].members.get_mut(place)
    }

    /// Takes over what is known of an agent; returns its slot, and whether it registered anew.
    pub(super) fn upsert(&mut self, facts: &AgentFacts<'_>, now: Instant) -> (usize, bool) {
        let slot = match self.by_id.get(&facts.id) {
            Some(slot) => *slot,
            None => self.add_slot(facts),
        };
        let known = &mut self.slots[slot];
        if !is_same(&known.agent, facts) {
            known.agent = Arc::new(candidate(facts));
            known.set_in_flight(known.in_flight);
        }
        let is_anew = known.registrations != facts.registrations;
        known.registrations = facts.registrations;
        known.is_known = true;
        known.is_routable = facts.is_routable;
        known.doubt.is_suspect = facts.is_suspect;
        known.capacity = facts.capacity;
        known.free_memory = facts.free_memory;
        self.set_models(slot, facts, now);
        (slot, is_anew)
    }

    /// Forgets an agent; returns the slot in which its last requests are counted.
    pub(super) fn forget(&mut self, id: AgentId) -> Option<usize> {
        let slot = self.slot_of(id)?;
        let pools: Vec<usize> = self.slots[slot].pools().collect();
        for pool in pools {
            self.leave(slot, pool);
        }
        let forgotten = &mut self.slots[slot];
        forgotten.is_known = false;
        forgotten.is_routable = false;
        forgotten.ejection = None;
        forgotten.busy_until = None;
        self.vacate_if_done(slot);
        Some(slot)
    }

    /// Counts one more request; returns whether the model is taken to be in memory, and whether
    /// the agent says so.
    pub(super) fn claim(&mut self, slot: usize, pool: usize, now: Instant) -> (bool, bool) {
        let claimed = &mut self.slots[slot];
        claimed.set_in_flight(claimed.in_flight + 1);
        self.pools[pool].claims += 1;
        let Some(member) = self.member_mut(slot, pool) else {
            return (false, false);
        };
        let (was_warm, is_loaded) = (member.is_warm(now), member.is_loaded);
        member.in_flight += 1;
        member.assumed_until = Some(now + STAYS_WARM);
        self.sort_by_warmth(slot, pool, now);
        if is_loaded {
            self.slots[slot].doubt.asked(now);
        }
        (was_warm, is_loaded)
    }

    /// Counts one request less. `has_failed`: it is not known whether the model was loaded.
    pub(super) fn release(&mut self, slot: usize, pool: usize, has_failed: bool, now: Instant) {
        let released = &mut self.slots[slot];
        released.set_in_flight(released.in_flight.saturating_sub(1));
        if let Some(member) = self.member_mut(slot, pool) {
            member.in_flight = member.in_flight.saturating_sub(1);
            if has_failed {
                member.assumed_until = None;
                self.sort_by_warmth(slot, pool, now);
            }
        }
        self.pools[pool].claims -= 1;
        self.drop_pool_if_done(pool);
        self.vacate_if_done(slot);
    }

    /// Forgets a model when nobody has it, asks for it or is served by it.
    pub(super) fn drop_pool_if_done(&mut self, pool: usize) {
        let done = &mut self.pools[pool];
        let is_needed = !done.members.is_empty() || !done.queue.is_empty() || done.claims > 0;
        if !is_needed && self.by_name.remove(&done.name).is_some() {
            if let Some(untagged) = untagged(&done.name) {
                self.by_name.remove(untagged);
            }
            *done = Pool::default();
            self.vacant_pools.push(pool);
        }
    }

    fn vacate_if_done(&mut self, slot: usize) {
        let done = &self.slots[slot];
        if !done.is_known && done.in_flight == 0 && self.by_id.remove(&done.agent.id).is_some() {
            self.vacant_slots.push(slot);
        }
    }

    fn add_slot(&mut self, facts: &AgentFacts<'_>) -> usize {
        let new = Slot {
            agent: Arc::new(candidate(facts)),
            is_known: true,
            is_routable: false,
            capacity: 0,
            in_flight: 0,
            free_memory: None,
            busy_until: None,
            ejection: None,
            ejections: 0,
            is_told_ejected: false,
            doubt: Doubt::default(),
            registrations: facts.registrations,
            places: Vec::new(),
        };
        let slot = if let Some(slot) = self.vacant_slots.pop() {
            self.slots[slot] = new;
            slot
        } else {
            self.slots.push(new);
            self.slots.len() - 1
        };
        self.by_id.insert(facts.id, slot);
        slot
    }
}

fn candidate(facts: &AgentFacts<'_>) -> Candidate {
    Candidate {
        id: facts.id,
        name: facts.name.into(),
        link: facts.link,
        speaks_ollama: facts.speaks_ollama,
        in_flight: Arc::clone(facts.in_flight),
    }
}

fn is_same(agent: &Candidate, facts: &AgentFacts<'_>) -> bool {
    let Candidate {
        id,
        name,
        link,
        speaks_ollama,
        in_flight,
    } = agent;
    *id == facts.id
        && **name == *facts.name
        && *link == facts.link
        && *speaks_ollama == facts.speaks_ollama
        && Arc::<AtomicU32>::ptr_eq(in_flight, facts.in_flight)
}

/// Returns a full name without the tag that is meant when there is none.
fn untagged(name: &str) -> Option<&str> {
    name.strip_suffix(":latest")
}

#[cfg(test)]
impl Fleet {
    /// Checks that both indexes say the same.
    pub(super) fn check(&self, now: Instant) {
        for (number, slot) in self.slots.iter().enumerate() {
            assert!(slot.places.is_sorted_by_key(|place| place.0));
            for (pool, place) in &slot.places {
                assert_eq!(self.pools[*pool].members[*place].slot, number);
            }
        }
        for pool in &self.pools {
            for member in &pool.members {
                let is_listed = member.warm_at.map(|at| pool.warm[at]) == Some(member.slot);
                assert_eq!(is_listed, member.is_warm(now), "{member:?}");
            }
            let warm = pool
                .members
                .iter()
                .filter(|member| member.warm_at.is_some());
            assert_eq!(warm.count(), pool.warm.len());
        }
    }

    /// Returns whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        let has_room = self.vacant_slots.len() == self.slots.len();
        self.by_id.is_empty() && self.by_name.is_empty() && has_room
    }
}
