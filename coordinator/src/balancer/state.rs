//! All that the balancer decides, under a clock that the caller moves: no lock, no task, no socket.
//!
//! [`State`] is what the coordinator runs and what a simulation can run. Everything that happens,
//! happens in one call under one lock, so that no slot is given twice and no waiter is forgotten
//! when one becomes free; there is no other state to race with.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use super::choice::Choice;
use super::ejection::Standing;
use super::facts::AgentFacts;
use super::fleet::Fleet;
use super::permit::{Failure, Outcome, Pace};
use super::policy::{Policy, mixed};
use super::queue::TicketId;
use super::speed::typical_seconds;
use super::{AcquireError, Wanted};
use crate::registry::agent::Candidate;

mod look;
mod waiting;

use look::{Look, Sight};
use waiting::Ticket;

/// How long an agent that says that it is busy counts as full.
const BUSY: Duration = Duration::from_secs(1);
/// How long an agent that says that it does not have a model is believed, unless it reports again.
const NO_MODEL: Duration = Duration::from_secs(30);

/// How to balance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How to choose among the agents that can take a request.
    pub policy: Policy,
    /// How many requests may wait for one model.
    pub queue_length: usize,
    /// How long a request may wait.
    pub queue_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            queue_length: 256,
            queue_timeout: Duration::from_mins(1),
        }
    }
}

/// The agents, what they are doing, and who waits for them.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    fleet: Fleet,
    tickets: HashMap<TicketId, Ticket>,
    next_ticket: TicketId,
    timers: BTreeSet<(Instant, Timer)>,
    random: u64,
    look: Look,
    in_flight: usize,
    queued: usize,
    woken: Vec<TicketId>,
    news: Vec<News>,
}

/// What has to be looked at when its time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Slot(usize),
    Member(usize, usize),
    Ticket(TicketId),
}

/// A slot of an agent, to be settled once.
#[must_use = "a claim that is not settled takes a slot for ever"]
#[derive(Debug)]
pub struct Claim {
    slot: usize,
    pool: usize,
    started: Instant,
    was_warm: bool,
    /// The agent has the model in memory and has not begun to answer.
    is_awaited: bool,
}

impl Claim {
    /// Returns whether it matters when the agent begins to answer.
    pub fn is_awaited(&self) -> bool {
        self.is_awaited
    }
}

/// A slot that was given to a request.
#[derive(Debug)]
pub struct Grant {
    /// Whose slot it is.
    pub agent: Arc<Candidate>,
    /// Why it is that one.
    pub choice: Choice,
    /// The slot.
    pub claim: Claim,
}

/// What became of asking for a slot.
#[derive(Debug)]
pub enum Acquisition {
    /// There is one.
    Ready(Grant),
    /// The request waits for one.
    Queued(TicketId),
}

/// What the registry should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The agent failed and gets no requests for a while.
    Ejected(AgentId),
    /// It may get requests again.
    Returned(AgentId),
}

impl State {
    /// Makes a state without agents; `seed` decides what is left to chance.
    pub fn new(settings: Settings, seed: u64) -> Self {
        Self {
            settings,
            fleet: Fleet::default(),
            tickets: HashMap::new(),
            next_ticket: 0,
            timers: BTreeSet::new(),
            random: seed,
            look: Look::default(),
            in_flight: 0,
            queued: 0,
            woken: Vec::new(),
            news: Vec::new(),
        }
    }

    /// Takes over what is known of an agent.
    pub fn upsert(&mut self, facts: &AgentFacts<'_>, now: Instant) {
        self.advance(now);
        let known = self.fleet.slot_of(facts.id);
        let mut pools = known.map_or_else(Vec::new, |slot| self.waited_for_at(slot));
        let (slot, is_anew) = self.fleet.upsert(facts, now);
        if is_anew {
            self.fleet.slots[slot].ejection = None;
            self.fleet.slots[slot].busy_until = None;
        }
        self.tell_standing(slot, now);
        pools.extend(self.waited_for_at(slot));
        self.rematch(pools, now);
    }

    /// Forgets an agent. What it is still serving is counted to its end.
    pub fn forget(&mut self, id: AgentId, now: Instant) {
        self.advance(now);
        let Some(slot) = self.fleet.slot_of(id) else {
            return;
        };
        let pools = self.waited_for_at(slot);
        self.fleet.slots[slot].ejection = None;
        self.tell_standing(slot, now);
        self.fleet.forget(id);
        self.rematch(pools, now);
    }

    /// Claims a slot of the best agent, or takes a place in the queue.
    pub fn acquire(
        &mut self,
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> Result<Acquisition, AcquireError> {
        self.advance(now);
        let pool = self.fleet.pool_of(wanted.model);
        let pool = pool.ok_or(AcquireError::NoSuchModel)?;
        match self.sight(pool, wanted, now) {
            Sight::Found(slot, choice) => {
                Ok(Acquisition::Ready(self.claim(slot, pool, choice, now)))
            }
            Sight::Busy => self.enqueue(pool, wanted, now).map(Acquisition::Queued),
            Sight::Nobody(error) => Err(error),
        }
    }

    /// Notes that the agent has begun to answer a request.
    pub fn answered(&mut self, claim: &mut Claim, now: Instant) {
        if std::mem::take(&mut claim.is_awaited) {
            self.fleet.slots[claim.slot].doubt.answered(now);
        }
    }

    /// Gives a slot back and learns from what became of the request.
    pub fn settle(&mut self, claim: Claim, outcome: Outcome, pace: Option<Pace>, now: Instant) {
        let Claim {
            slot,
            pool,
            started,
            was_warm,
            is_awaited,
        } = claim;
        if is_awaited {
            let doubt = &mut self.fleet.slots[slot].doubt;
            match outcome {
                Outcome::Success => doubt.answered(now),
                Outcome::Cancelled | Outcome::Failure(_) => doubt.gave_up(now),
            }
        }
        if let (Outcome::Success, Some(pace), true) = (outcome, pace, was_warm)
            && let Some(member) = self.fleet.member_mut(slot, pool)
        {
            let seconds = typical_seconds(pace);
            member.speed.learn(seconds, now);
            self.fleet.pools[pool].average.learn(seconds, now);
        }
        let was_held = self.is_held(slot, now);
        self.judge((slot, pool), started, outcome, now);
        let ejects = !was_held && self.is_held(slot, now);
        self.fleet.slots[slot].ejections += u64::from(ejects);
        let changes_who_can = ejects || outcome == Outcome::Failure(Failure::NoModel);
        let pools = if changes_who_can {
            self.waited_for_at(slot)
        } else {
            Vec::new()
        };
        let has_failed = match outcome {
            Outcome::Success
            | Outcome::Cancelled
            | Outcome::Failure(Failure::Busy | Failure::NoRoute) => false,
            Outcome::Failure(_) => true,
        };
        self.in_flight -= 1;
        self.fleet.release(slot, pool, has_failed, now);
        self.tell_standing(slot, now);
        self.advance(now);
        self.offer(slot, now);
        self.rematch(pools, now);
    }

    /// Returns how many requests are being served.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns how many requests wait.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Returns how many requests wait for each model that is waited for.
    pub fn queues(&self) -> Vec<(String, usize)> {
        let waited_for = self
            .fleet
            .pools
            .iter()
            .filter(|pool| !pool.queue.is_empty());
        waited_for
            .map(|pool| (pool.name().to_owned(), pool.queue.len()))
            .collect()
    }

    /// Returns how often each agent was ejected that ever was.
    pub fn ejections(&self) -> Vec<(AgentId, u64)> {
        let slots = self.fleet.slots.iter();
        slots
            .filter(|slot| slot.is_known && slot.ejections > 0)
            .map(|slot| (slot.agent.id, slot.ejections))
            .collect()
    }

    /// Returns whether any known agent has a model, routable or not.
    pub fn knows(&self, model: &str) -> bool {
        self.fleet.pool_of(model).is_some()
    }

    /// Takes what the registry should know, in the order in which it happened.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    /// Returns whether there is something that the registry should know.
    pub fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    fn claim(&mut self, slot: usize, pool: usize, choice: Choice, now: Instant) -> Grant {
        let (was_warm, is_awaited) = self.fleet.claim(slot, pool, now);
        self.in_flight += 1;
        self.watch(slot, pool, now);
        Grant {
            agent: Arc::clone(&self.fleet.slots[slot].agent),
            choice,
            claim: Claim {
                slot,
                pool,
                started: now,
                was_warm,
                is_awaited,
            },
        }
    }

    /// Draws conclusions about the agent.
    fn judge(
        &mut self,
        (slot, pool): (usize, usize),
        started: Instant,
        outcome: Outcome,
        now: Instant,
    ) {
        let judged = &mut self.fleet.slots[slot];
        match outcome {
            Outcome::Success => {
                if let Some(ejection) = &mut judged.ejection {
                    ejection.succeeded(started, now);
                    if ejection.is_forgotten(now) {
                        judged.ejection = None;
                    }
                }
            }
            Outcome::Cancelled | Outcome::Failure(Failure::NoRoute) => {}
            Outcome::Failure(Failure::Busy) => {
                judged.busy_until = Some(now + BUSY);
                self.timers.insert((now + BUSY, Timer::Slot(slot)));
            }
            Outcome::Failure(Failure::NoModel) => {
                if let Some(member) = self.fleet.member_mut(slot, pool) {
                    member.no_model_until = Some(now + NO_MODEL);
                    self.timers
                        .insert((now + NO_MODEL, Timer::Member(slot, pool)));
                }
            }
            Outcome::Failure(
                Failure::NotConnected | Failure::Broken | Failure::Silent | Failure::Stalled,
            ) => {
                if judged.is_known {
                    judged.ejection.get_or_insert_default().failed(started, now);
                }
            }
            Outcome::Failure(Failure::Status(_)) => {
                if judged.is_known {
                    judged.ejection.get_or_insert_default().erred(started, now);
                }
            }
        }
        if let Standing::Held(until) = self.fleet.slots[slot].standing(now) {
            self.timers.insert((until, Timer::Slot(slot)));
        }
    }

    fn is_held(&self, slot: usize, now: Instant) -> bool {
        match self.fleet.slots[slot].standing(now) {
            Standing::Held(_) => true,
            Standing::Good | Standing::Probation => false,
        }
    }

    /// Notes for the registry whether an agent is ejected, when that has changed.
    fn tell_standing(&mut self, slot: usize, now: Instant) {
        let is_held = self.is_held(slot, now);
        let told = &mut self.fleet.slots[slot];
        if told.is_told_ejected != is_held {
            told.is_told_ejected = is_held;
            let id = told.agent.id;
            self.news.push(if is_held {
                News::Ejected(id)
            } else {
                News::Returned(id)
            });
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        mixed(self.random)
    }
}

#[cfg(test)]
mod tests;
