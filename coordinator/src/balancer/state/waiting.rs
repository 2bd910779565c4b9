//! Requests that wait for a slot, and what happens as time goes by.

use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use super::super::choice::{Reason, WhyNot};
use super::super::queue::TicketId;
use super::super::{AcquireError, Wanted};
use super::look::{Sight, why_not};
use super::{Grant, State, Timer};
use crate::balancer::permit::Outcome;

/// A request that waits, or what became of it and nobody has picked up yet.
#[derive(Debug)]
pub(super) struct Ticket {
    ask: Ask,
    pool: usize,
    since: Instant,
    deadline: Instant,
    settled: Option<Result<Grant, AcquireError>>,
}

/// What a request that waits asks for.
#[derive(Debug)]
struct Ask {
    model: Box<str>,
    ollama_only: bool,
    only: Box<[AgentId]>,
    tried: Box<[AgentId]>,
    client: u64,
    prefix: Option<u64>,
}

impl Ask {
    fn of(wanted: &Wanted<'_>) -> Self {
        Self {
            model: wanted.model.into(),
            ollama_only: wanted.ollama_only,
            only: wanted.only.into(),
            tried: wanted.tried.into(),
            client: wanted.client,
            prefix: wanted.prefix,
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            model: &self.model,
            ollama_only: self.ollama_only,
            only: &self.only,
            tried: &self.tried,
            client: self.client,
            prefix: self.prefix,
        }
    }
}

impl State {
    /// Returns what became of a request that waited, once; `None` while it waits.
    pub fn collect(&mut self, ticket: TicketId) -> Option<Result<Grant, AcquireError>> {
        self.tickets.get(&ticket)?.settled.as_ref()?;
        self.tickets.remove(&ticket)?.settled
    }

    /// Forgets a request whose client has left, whether it waits or was given a slot just now.
    pub fn cancel(&mut self, ticket: TicketId, now: Instant) {
        let Some(gone) = self.tickets.remove(&ticket) else {
            return;
        };
        match gone.settled {
            None => {
                self.timers.remove(&(gone.deadline, Timer::Ticket(ticket)));
                self.unqueue(gone.pool, gone.ask.client, ticket);
            }
            Some(Ok(grant)) => self.settle(grant.claim, Outcome::Cancelled, None, now),
            Some(Err(_)) => {}
        }
    }

    /// Returns how many requests are served up to and with this one; `None` when it waits no more.
    pub fn position(&self, ticket: TicketId) -> Option<usize> {
        let waits = self.tickets.get(&ticket)?;
        let queue = &self.fleet.pools[waits.pool].queue;
        queue.position(waits.ask.client, ticket)
    }

    /// Takes the requests that wait no more and have to be told so.
    pub fn take_woken(&mut self) -> Vec<TicketId> {
        std::mem::take(&mut self.woken)
    }

    /// Returns when [`Self::advance`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Does what is due at `now`: ends waits, hold-downs and beliefs.
    pub fn advance(&mut self, now: Instant) {
        while let Some(&(due, timer)) = self.timers.first() {
            if due > now {
                return;
            }
            self.timers.pop_first();
            match timer {
                Timer::Slot(slot) => {
                    self.tell_standing(slot, now);
                    self.offer(slot, now);
                }
                Timer::Member(slot, pool) => {
                    if let Some(member) = self.fleet.member_mut(slot, pool) {
                        member.is_watched = false;
                        self.fleet.sort_by_warmth(slot, pool, now);
                        self.watch(slot, pool, now);
                        self.offer(slot, now);
                    }
                }
                Timer::Ticket(ticket) => self.turn_away(ticket, AcquireError::QueueTimeout),
            }
        }
    }

    /// Ends a wait that comes to nothing.
    fn turn_away(&mut self, ticket: TicketId, error: AcquireError) {
        let waits = self.tickets.get_mut(&ticket);
        let Some(waits) = waits.filter(|waits| waits.settled.is_none()) else {
            return;
        };
        waits.settled = Some(Err(error));
        let (pool, client, deadline) = (waits.pool, waits.ask.client, waits.deadline);
        self.timers.remove(&(deadline, Timer::Ticket(ticket)));
        self.unqueue(pool, client, ticket);
        self.woken.push(ticket);
    }

    /// Has a look at whether a model is still in memory when that is not sure any more.
    pub(super) fn watch(&mut self, slot: usize, pool: usize, now: Instant) {
        let Some(member) = self.fleet.member_mut(slot, pool) else {
            return;
        };
        if let (Some(cools_at), false) = (member.cools_at(now), member.is_watched) {
            member.is_watched = true;
            self.timers.insert((cools_at, Timer::Member(slot, pool)));
        }
    }

    pub(super) fn enqueue(
        &mut self,
        pool: usize,
        wanted: &Wanted<'_>,
        now: Instant,
    ) -> Result<TicketId, AcquireError> {
        let queue = &mut self.fleet.pools[pool].queue;
        if queue.len() >= self.settings.queue_length {
            return Err(AcquireError::QueueFull);
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        queue.push(wanted.client, ticket);
        self.queued += 1;
        let deadline = now + self.settings.queue_timeout;
        self.timers.insert((deadline, Timer::Ticket(ticket)));
        let waits = Ticket {
            ask: Ask::of(wanted),
            pool,
            since: now,
            deadline,
            settled: None,
        };
        self.tickets.insert(ticket, waits);
        Ok(ticket)
    }

    /// Gives the free slots of an agent to those who wait for one, the oldest first among those
    /// who are next for their model, but those whose model it has in memory before the others:
    /// else each freed slot swaps a model for another, and a busy fleet does little but load.
    pub(super) fn offer(&mut self, slot: usize, now: Instant) {
        while self.queued > 0 {
            let pools = self.waited_for_at(slot);
            let next = pools
                .into_iter()
                .filter_map(|pool| {
                    let ticket = self.next_for(slot, pool, now)?;
                    let is_passed = self.lets_pass((slot, pool), ticket, now);
                    Some((is_passed, ticket, pool))
                })
                .min();
            let Some((_, ticket, pool)) = next else {
                return;
            };
            self.serve(ticket, (slot, pool), None, now);
        }
    }

    /// Returns whether a request lets others pass because this agent would have to load its model;
    /// in the last quarter of the time that it may wait it does so no more.
    fn lets_pass(&self, (slot, pool): (usize, usize), ticket: TicketId, now: Instant) -> bool {
        let place = self.fleet.slots[slot].place_in(pool);
        let is_warm = place.is_some_and(|at| self.fleet.pools[pool].members[at].is_warm(now));
        let has_time = self.tickets.get(&ticket).is_some_and(|waits| {
            let left = waits.deadline.saturating_duration_since(now);
            left > self.settings.queue_timeout / 4
        });
        !is_warm && has_time
    }

    /// Looks for every request that waits for these models whether it can be served now.
    pub(super) fn rematch(&mut self, mut pools: Vec<usize>, now: Instant) {
        pools.sort_unstable();
        pools.dedup();
        for pool in pools {
            for ticket in self.fleet.pools[pool].queue.tickets() {
                let Some(waits) = self.tickets.remove(&ticket) else {
                    continue;
                };
                let sight = self.sight(pool, &waits.ask.wanted(), now);
                self.tickets.insert(ticket, waits);
                match sight {
                    Sight::Found(slot, choice) => {
                        self.serve(ticket, (slot, pool), Some(choice.reason), now);
                    }
                    Sight::Busy => {}
                    Sight::Nobody(error) => self.turn_away(ticket, error),
                }
            }
        }
    }

    /// Returns the models of an agent for which somebody waits.
    pub(super) fn waited_for_at(&self, slot: usize) -> Vec<usize> {
        if self.queued == 0 {
            return Vec::new();
        }
        let pools = self.fleet.slots[slot].pools();
        pools
            .filter(|pool| !self.fleet.pools[*pool].queue.is_empty())
            .collect()
    }

    /// Returns who is next for a model among those whom this agent can serve.
    fn next_for(&self, slot: usize, pool: usize, now: Instant) -> Option<TicketId> {
        let place = self.fleet.slots[slot].place_in(pool)?;
        let member = &self.fleet.pools[pool].members[place];
        self.fleet.pools[pool].queue.next(|ticket| {
            let waits = self.tickets.get(&ticket);
            waits.is_some_and(|waits| {
                let wanted = waits.ask.wanted();
                match why_not(&self.fleet.slots[slot], member, &wanted, now) {
                    None | Some(WhyNot::Doubtful) => true,
                    Some(WhyNot::Ejected) => self.is_panic(pool, &wanted, now),
                    Some(_) => false,
                }
            })
        })
    }

    fn serve(
        &mut self,
        ticket: TicketId,
        (slot, pool): (usize, usize),
        reason: Option<Reason>,
        now: Instant,
    ) {
        let Some(mut waits) = self.tickets.remove(&ticket) else {
            return;
        };
        self.timers.remove(&(waits.deadline, Timer::Ticket(ticket)));
        self.fleet.pools[pool].queue.serve(waits.ask.client, ticket);
        self.queued -= 1;
        let mut choice = self.explain_freed((slot, pool), &waits.ask.wanted(), now);
        choice.reason = reason.unwrap_or(choice.reason);
        choice.queued = now.saturating_duration_since(waits.since);
        let grant = self.claim(slot, pool, choice, now);
        waits.settled = Some(Ok(grant));
        self.tickets.insert(ticket, waits);
        self.woken.push(ticket);
    }

    fn unqueue(&mut self, pool: usize, client: u64, ticket: TicketId) {
        if self.fleet.pools[pool].queue.remove(client, ticket) {
            self.queued -= 1;
            self.fleet.drop_pool_if_done(pool);
        }
    }
}

#[cfg(test)]
impl State {
    /// Returns the slots that were given to waiters who have not picked them up.
    pub(super) fn granted(&self) -> impl Iterator<Item = &Grant> {
        let settled = self
            .tickets
            .values()
            .filter_map(|ticket| ticket.settled.as_ref());
        settled.filter_map(|settled| settled.as_ref().ok())
    }

    /// Returns the requests that wait, and for which pool.
    pub(super) fn waiting(&self) -> Vec<(TicketId, usize)> {
        let waiting = self
            .tickets
            .iter()
            .filter(|(_, ticket)| ticket.settled.is_none());
        waiting
            .map(|(ticket, waits)| (*ticket, waits.pool))
            .collect()
    }

    /// Looks whether somebody could serve a request that waits.
    pub(super) fn sight_of(&mut self, ticket: TicketId, pool: usize, now: Instant) -> Sight {
        let waits = self.tickets.remove(&ticket).expect("it waits");
        let sight = self.sight(pool, &waits.ask.wanted(), now);
        self.tickets.insert(ticket, waits);
        sight
    }
}
