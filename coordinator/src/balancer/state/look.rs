//! One look at the agents that have a model: who could take a request, and who does.
//!
//! All members of a small pool are looked at. Of a large one a few are drawn, those with the model
//! in memory first; all of it is gone through only when those that were drawn are full.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::choice::{Choice, Considered, MAX_CONSIDERED, Reason, WhyNot};
use super::super::ejection::Standing;
use super::super::facts::fits;
use super::super::fleet::{Fleet, Member, Pool, Slot};
use super::super::policy::{self, Draw, Picked, Policy, PolicyInput, below, rank};
use super::super::{AcquireError, Wanted};
use super::State;

/// So many are looked at one by one; of more, some are drawn.
const SMALL: usize = 64;
/// How many are drawn. Two would do to avoid the worst; more find idle agents of a busy fleet.
const DRAWN: usize = 8;

/// What a look at the agents showed.
#[derive(Debug)]
pub(super) enum Sight {
    /// This agent takes the request.
    Found(usize, Choice),
    /// Those that could take it are busy.
    Busy,
    /// Nobody could take it, however long it waits.
    Nobody(AcquireError),
}

/// The agents that were looked at; kept to be used again.
#[derive(Debug, Default)]
pub(super) struct Look {
    slots: Vec<usize>,
    inputs: Vec<PolicyInput>,
    /// How many could take it now or later, and how many of them are ejected.
    able: usize,
    ejected: usize,
    doubtful: usize,
    speaks_other_api: bool,
    has_no_model: bool,
    has_any: bool,
}

/// Which of the agents that are gone through are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    All,
    Usable,
    Doubtful,
    Ejected,
}

impl Look {
    fn clear(&mut self) {
        self.slots.clear();
        self.inputs.clear();
        (self.able, self.ejected, self.doubtful) = (0, 0, 0);
        (self.speaks_other_api, self.has_no_model, self.has_any) = (false, false, false);
    }

    fn has_usable(&self) -> bool {
        self.inputs.iter().any(PolicyInput::is_usable)
    }

    fn is_panic(&self) -> bool {
        self.ejected > 0 && self.ejected * 2 >= self.able
    }

    fn add(&mut self, (index, slot): (usize, &Slot), input: PolicyInput, now: Instant, keep: Keep) {
        self.has_any = true;
        let why_not = input.why_not;
        if why_not.is_none_or(WhyNot::passes) {
            self.able += 1;
            self.ejected += usize::from(is_held(slot, now));
        }
        self.doubtful += usize::from(why_not == Some(WhyNot::Doubtful));
        self.speaks_other_api |= why_not == Some(WhyNot::OtherApi);
        self.has_no_model |= why_not == Some(WhyNot::NoModel);
        let is_kept = match keep {
            Keep::All => true,
            Keep::Usable => why_not.is_none(),
            Keep::Doubtful => why_not == Some(WhyNot::Doubtful),
            Keep::Ejected => why_not == Some(WhyNot::Ejected),
        };
        if is_kept && (keep == Keep::All || self.inputs.len() < SMALL) {
            self.slots.push(index);
            self.inputs.push(input);
        }
    }

    /// Has those taken against whom nothing else speaks.
    fn pardon(&mut self, what: WhyNot) {
        for input in &mut self.inputs {
            input.why_not = input.why_not.filter(|why| *why != what);
        }
    }

    /// Returns why nobody could take it.
    fn error(&self, wanted: &Wanted<'_>) -> AcquireError {
        if !wanted.tried.is_empty() {
            AcquireError::Exhausted
        } else if !wanted.only.is_empty() {
            AcquireError::NotThere
        } else if self.speaks_other_api {
            AcquireError::OtherApi
        } else if self.has_no_model || !self.has_any {
            AcquireError::NoSuchModel
        } else {
            AcquireError::NotRoutable
        }
    }
}

impl State {
    /// Looks for an agent that takes the request now.
    pub(super) fn sight(&mut self, pool: usize, wanted: &Wanted<'_>, now: Instant) -> Sight {
        let mut look = std::mem::take(&mut self.look);
        look.clear();
        let sight = self.sight_into(&mut look, pool, wanted, now);
        self.look = look;
        sight
    }

    fn sight_into(
        &mut self,
        look: &mut Look,
        pool: usize,
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> Sight {
        let members = self.fleet.pools[pool].members.len();
        let is_whole = members <= SMALL || !wanted.only.is_empty();
        if !wanted.only.is_empty() {
            for id in wanted.only {
                if let Some(slot) = self.fleet.slot_of(*id) {
                    self.look_at(look, (slot, pool), wanted, now);
                }
            }
        } else if is_whole {
            look_through(&self.fleet, look, (pool, 0), wanted, (now, Keep::All));
        } else {
            self.draw_some(look, pool, wanted, now);
        }
        let mut picked = self.pick(look, pool, is_whole, wanted);
        if picked.is_none() && !is_whole {
            self.look_anew(look, pool, wanted, (now, Keep::Usable));
            picked = self.pick(look, pool, false, wanted);
        }
        if picked.is_none() && look.doubtful > 0 {
            if !is_whole {
                self.look_anew(look, pool, wanted, (now, Keep::Doubtful));
            }
            look.pardon(WhyNot::Doubtful);
            picked = self.pick(look, pool, is_whole, wanted);
        }
        if picked.is_none() && look.is_panic() {
            if !is_whole {
                self.look_anew(look, pool, wanted, (now, Keep::Ejected));
            }
            look.pardon(WhyNot::Ejected);
            picked = self
                .pick(look, pool, is_whole, wanted)
                .map(|picked| Picked {
                    reason: Reason::Panic,
                    ..picked
                });
        }
        let Some(picked) = picked else {
            return if look.able > 0 {
                Sight::Busy
            } else {
                Sight::Nobody(look.error(wanted))
            };
        };
        let slot = look.slots[picked.index];
        self.fleet.pools[pool].turn = self.fleet.slots[slot].place_in(pool).unwrap_or(0) + 1;
        Sight::Found(slot, self.explain(look, pool, picked, now))
    }

    /// Goes through all agents of a large pool, from any of them on.
    fn look_anew(
        &mut self,
        look: &mut Look,
        pool: usize,
        wanted: &Wanted<'_>,
        when: (Instant, Keep),
    ) {
        look.clear();
        let start = below(self.next_random(), self.fleet.pools[pool].members.len());
        look_through(&self.fleet, look, (pool, start), wanted, when);
    }

    fn pick(
        &mut self,
        look: &Look,
        pool: usize,
        is_whole: bool,
        wanted: &Wanted<'_>,
    ) -> Option<Picked> {
        let draw = Draw {
            random: self.next_random(),
            turn: if is_whole {
                self.fleet.pools[pool].turn
            } else {
                0
            },
            prefix: wanted.prefix,
        };
        policy::pick(self.settings.policy, &look.inputs, draw)
    }

    /// Returns whether so many of the agents that have the model are ejected that they are asked
    /// all the same, because the fault may be elsewhere.
    pub(super) fn is_panic(&self, pool: usize, wanted: &Wanted<'_>, now: Instant) -> bool {
        let mut look = Look::default();
        look_through(
            &self.fleet,
            &mut look,
            (pool, 0),
            wanted,
            (now, Keep::Usable),
        );
        look.is_panic()
    }

    /// Draws some of the agents of a large pool.
    fn draw_some(&mut self, look: &mut Look, pool: usize, wanted: &Wanted<'_>, now: Instant) {
        let policy = self.settings.policy;
        let len = self.fleet.pools[pool].members.len();
        if policy == Policy::RoundRobin {
            let turn = self.fleet.pools[pool].turn;
            for step in 0..DRAWN {
                let slot = self.fleet.pools[pool].members[(turn + step) % len].slot;
                self.look_at(look, (slot, pool), wanted, now);
            }
            return;
        }
        if let (Policy::PrefixAffinity, Some(prefix)) = (policy, wanted.prefix) {
            let closest = closest(&self.fleet.pools[pool], prefix, now);
            for slot in closest.into_iter().flatten() {
                self.look_at(look, (slot, pool), wanted, now);
            }
            if look.has_usable() {
                return;
            }
        }
        if policy != Policy::Weighted && self.draw_warm(look, pool, wanted, now) {
            return;
        }
        for _ in 0..DRAWN {
            let place = below(self.next_random(), len);
            let slot = self.fleet.pools[pool].members[place].slot;
            self.look_at(look, (slot, pool), wanted, now);
        }
    }

    /// Draws some of the agents that have the model in memory; all of them, if those are full.
    /// Returns whether one of them can take the request.
    fn draw_warm(
        &mut self,
        look: &mut Look,
        pool: usize,
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> bool {
        let warm = self.fleet.pools[pool].warm.len();
        if warm > SMALL {
            for _ in 0..DRAWN {
                let at = below(self.next_random(), warm);
                let slot = self.fleet.pools[pool].warm[at];
                self.look_at(look, (slot, pool), wanted, now);
            }
            if look.has_usable() {
                return true;
            }
        }
        let start = below(self.next_random(), warm);
        for step in 0..warm {
            let slot = self.fleet.pools[pool].warm[(start + step) % warm];
            self.look_at(look, (slot, pool), wanted, now);
            if look.inputs.len() > SMALL && look.has_usable_at_end() {
                return true;
            }
        }
        look.has_usable()
    }

    fn look_at(
        &self,
        look: &mut Look,
        (slot, pool): (usize, usize),
        wanted: &Wanted<'_>,
        now: Instant,
    ) {
        let Some(place) = self.fleet.slots[slot].place_in(pool) else {
            return;
        };
        let member = &self.fleet.pools[pool].members[place];
        let input = input(&self.fleet, pool, member, wanted, now);
        look.add((slot, &self.fleet.slots[slot]), input, now, Keep::All);
    }

    /// Tells why an agent was picked, with the best of those that were not.
    fn explain(&self, look: &Look, pool: usize, picked: Picked, now: Instant) -> Choice {
        let taken = look.slots[picked.index];
        let mut reason = picked.reason;
        if self.fleet.slots[taken].standing(now) == Standing::Probation {
            reason = Reason::Probation;
        }
        let mut best = [0; MAX_CONSIDERED - 1];
        let mut kept = 0;
        for index in (0..look.inputs.len()).filter(|index| *index != picked.index) {
            let input = &look.inputs[index];
            let better = |other: &usize| {
                let other = &look.inputs[*other];
                let by_use = other.is_usable().cmp(&input.is_usable());
                by_use.then_with(|| other.compare(input)).is_ge()
            };
            let at = best[..kept].partition_point(better);
            if at < best.len() {
                kept = (kept + 1).min(best.len());
                best[at..kept].rotate_right(1);
                best[at] = index;
            }
        }
        let mut considered = Vec::with_capacity(kept + 1);
        for index in std::iter::once(picked.index).chain(best[..kept].iter().copied()) {
            considered.push(self.considered(look.slots[index], &look.inputs[index]));
        }
        Choice {
            policy: self.settings.policy,
            reason,
            queued: std::time::Duration::ZERO,
            candidates: self.fleet.pools[pool].members.len(),
            considered,
        }
    }

    /// Tells that an agent was the first to become free.
    pub(super) fn explain_freed(
        &self,
        (slot, pool): (usize, usize),
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> Choice {
        let place = self.fleet.slots[slot].place_in(pool);
        let member = place.map(|place| &self.fleet.pools[pool].members[place]);
        let input = member.map(|member| input(&self.fleet, pool, member, wanted, now));
        let reason = match self.fleet.slots[slot].standing(now) {
            Standing::Good => Reason::Freed,
            Standing::Probation => Reason::Probation,
            Standing::Held(_) => Reason::Panic,
        };
        Choice {
            policy: self.settings.policy,
            reason,
            candidates: self.fleet.pools[pool].members.len(),
            considered: input
                .iter()
                .map(|input| self.considered(slot, input))
                .collect(),
            ..Choice::default()
        }
    }

    fn considered(&self, slot: usize, input: &PolicyInput) -> Considered {
        let slot = &self.fleet.slots[slot];
        Considered {
            agent: Arc::clone(&slot.agent),
            in_flight: slot.in_flight,
            capacity: slot.capacity,
            warm: input.warm,
            fits: input.fits,
            slowness: input.slowness,
            score: input.score(),
            why_not: input.why_not,
        }
    }
}

impl Look {
    fn has_usable_at_end(&self) -> bool {
        self.inputs.last().is_some_and(PolicyInput::is_usable)
    }
}

/// Goes through all agents that have the model, from `start` on.
fn look_through(
    fleet: &Fleet,
    look: &mut Look,
    (pool, start): (usize, usize),
    wanted: &Wanted<'_>,
    (now, keep): (Instant, Keep),
) {
    let members = &fleet.pools[pool].members;
    let (first, last) = members.split_at(start);
    for member in last.iter().chain(first) {
        let input = input(fleet, pool, member, wanted, now);
        look.add((member.slot, &fleet.slots[member.slot]), input, now, keep);
    }
}

fn input(
    fleet: &Fleet,
    pool: usize,
    member: &Member,
    wanted: &Wanted<'_>,
    now: Instant,
) -> PolicyInput {
    let slot = &fleet.slots[member.slot];
    PolicyInput {
        in_flight: slot.in_flight,
        capacity: limit(slot, now),
        warm: member.is_warm(now),
        fits: fits(member.size, slot.free_memory),
        slowness: member.speed.relative_to(&fleet.pools[pool].average, now),
        identity: member.identity,
        why_not: why_not(slot, member, wanted, now),
    }
}

/// Returns what speaks against an agent, what lasts before what passes.
pub(super) fn why_not(
    slot: &Slot,
    member: &Member,
    wanted: &Wanted<'_>,
    now: Instant,
) -> Option<WhyNot> {
    let id = &slot.agent.id;
    if !slot.is_routable {
        Some(WhyNot::NotRoutable)
    } else if !wanted.only.is_empty() && !wanted.only.contains(id) {
        Some(WhyNot::NotNamed)
    } else if wanted.tried.contains(id) {
        Some(WhyNot::Tried)
    } else if wanted.ollama_only && !slot.agent.speaks_ollama {
        Some(WhyNot::OtherApi)
    } else if !member.is_called(wanted.model)
        || member.no_model_until.is_some_and(|until| now < until)
    {
        Some(WhyNot::NoModel)
    } else if slot.busy_until.is_some_and(|until| now < until) {
        Some(WhyNot::Busy)
    } else if slot.in_flight >= limit(slot, now) {
        Some(WhyNot::Full)
    } else if is_held(slot, now) {
        Some(WhyNot::Ejected)
    } else if slot.doubt.is_raised(now) {
        Some(WhyNot::Doubtful)
    } else {
        None
    }
}

fn is_held(slot: &Slot, now: Instant) -> bool {
    match slot.standing(now) {
        Standing::Held(_) => true,
        Standing::Good | Standing::Probation => false,
    }
}

fn limit(slot: &Slot, now: Instant) -> u32 {
    match slot.standing(now) {
        Standing::Probation => slot.capacity.min(1),
        Standing::Good | Standing::Held(_) => slot.capacity,
    }
}

/// Returns the agents that are closest to a conversation, of those with the model in memory if
/// there are any. It goes through all members, which lie side by side.
fn closest(pool: &Pool, prefix: u64, now: Instant) -> [Option<usize>; DRAWN] {
    let mut best = [None; DRAWN];
    let mut ranks = [0; DRAWN];
    for member in &pool.members {
        let rank = rank(prefix, member.identity);
        if rank > ranks[DRAWN - 1] && (pool.warm.is_empty() || member.is_warm(now)) {
            let at = ranks.partition_point(|other| *other >= rank);
            ranks[at..].rotate_right(1);
            best[at..].rotate_right(1);
            (ranks[at], best[at]) = (rank, Some(member.slot));
        }
    }
    best
}
