//! The collection of agents: pure, synchronous, every method takes the moment it happens at.
//!
//! What must be durable first is *staged*, committed by the caller, and *published* when storage
//! has it; until then readers see the record before. Changes are published in the order in which
//! they were staged. Deadlines are lazy: a renewed lease leaves its old entry in the ordered set,
//! which is corrected when it comes up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use super::agent::{AgentRecord, Contest, Moment, Reach};
use super::lease::{Lease, LeasePolicy};
use super::registration::{Granted, NewAgent, RegisterError, is_unchanged};
use super::snapshot::AgentSnapshot;
use super::transition::Transition;
use crate::storage::Change;
use crate::storage::agent::StoredAgent;

mod reach;
mod renewal;
mod sweep;

pub use reach::ReachCheck;
pub use renewal::{RenewError, Renewed};

/// The most agents one registry holds.
const MAX_AGENTS: usize = 1_000_000;
/// Agents heard of this long before the last save may still be alive after a restart.
const PRESUMED_ALIVE: Duration = Duration::from_mins(5);

/// All agents, by id.
#[derive(Debug)]
pub struct AgentTable {
    policy: LeasePolicy,
    records: BTreeMap<AgentId, AgentRecord>,
    staged: HashMap<AgentId, Ticket>,
    by_endpoint: BTreeSet<(SocketAddr, AgentId)>,
    deadlines: BTreeSet<(Instant, AgentId)>,
    reach_queue: BTreeSet<(Instant, AgentId)>,
    online: usize,
    presumed: usize,
    revision: u64,
    next_version: u64,
    transitions: Vec<Transition>,
}

/// A change on its way to storage.
#[derive(Debug, Clone)]
pub struct Ticket {
    id: AgentId,
    version: u64,
    change: StagedChange,
}

#[derive(Debug, Clone)]
enum StagedChange {
    Register {
        record: Arc<StoredAgent>,
        brings_report: bool,
    },
    Update {
        record: Arc<StoredAgent>,
    },
    Remove,
}

impl Ticket {
    /// Returns what storage has to commit.
    pub fn to_commit(&self) -> Change {
        match &self.change {
            StagedChange::Register { record, .. } | StagedChange::Update { record } => {
                Change::Put(Arc::clone(record))
            }
            StagedChange::Remove => Change::Remove(self.id),
        }
    }

    fn record(&self) -> Option<&Arc<StoredAgent>> {
        match &self.change {
            StagedChange::Register { record, .. } | StagedChange::Update { record } => Some(record),
            StagedChange::Remove => None,
        }
    }
}

/// What a registration leads to.
#[derive(Debug)]
pub enum Registration {
    /// Nothing has to be written.
    Settled(Granted),
    /// The ticket has to be committed and published.
    Staged(Ticket),
}

impl AgentTable {
    /// Makes an empty table.
    pub fn new(policy: LeasePolicy) -> Self {
        Self {
            policy,
            records: BTreeMap::new(),
            staged: HashMap::new(),
            by_endpoint: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            reach_queue: BTreeSet::new(),
            online: 0,
            presumed: 0,
            revision: 0,
            next_version: 0,
            transitions: Vec::new(),
        }
    }

    /// Fills the table with what storage had.
    ///
    /// Agents that were alive when it was saved are presumed alive for a grace period.
    pub fn restore(
        &mut self,
        agents: Vec<StoredAgent>,
        saved_at: Option<DateTime<Utc>>,
        now: Moment,
    ) {
        let saved_at = saved_at.unwrap_or(now.wall);
        let terms = self.policy.terms(agents.len(), None);
        let grace = self.policy.restart_grace();
        for stored in agents {
            let id = stored.id;
            let silent = saved_at.signed_duration_since(stored.last_seen).to_std();
            let presumed = stored.left_at.is_none() && silent.unwrap_or_default() < PRESUMED_ALIVE;
            let mut record = AgentRecord::new(Arc::new(stored));
            if record.stored.verified {
                record.reach = Reach::Reachable;
            }
            self.by_endpoint.insert((record.endpoint(), id));
            self.records.insert(id, record);
            if presumed {
                self.presumed += 1;
                self.set_lease(id, Some(Lease::presume(terms, now.mono, grace)));
                self.schedule_reach(id, now.mono);
            }
        }
        self.revision += 1;
    }

    /// Decides a registration.
    pub fn register(&mut self, new: &NewAgent, now: Moment) -> Result<Registration, RegisterError> {
        let id = self.identify(new)?;
        let known = self.current(id);
        match &known {
            Some(known) if !new.may_act_for(known) => return Err(RegisterError::WrongSecret),
            Some(_) if self.is_refused(id, new) => return Err(RegisterError::DuplicateIdentity),
            None if self.records.len() + self.staged.len() >= MAX_AGENTS => {
                return Err(RegisterError::Full(MAX_AGENTS));
            }
            Some(_) | None => {}
        }
        let record = new.record(id, known.as_deref(), now.wall);
        let brings_report = new.runtime.is_some();
        let settled = !self.staged.contains_key(&id)
            && known
                .as_deref()
                .is_some_and(|known| is_unchanged(known, &record));
        if settled {
            let granted = self.apply_registration(record, brings_report, now);
            return Ok(Registration::Settled(granted));
        }
        self.by_endpoint.insert((new.endpoint(), id));
        let change = StagedChange::Register {
            record,
            brings_report,
        };
        Ok(Registration::Staged(self.stage(id, change)))
    }

    /// Stages a change of a known agent's record; `None` when there is no such agent.
    pub fn update(&mut self, id: AgentId, change: impl FnOnce(&mut StoredAgent)) -> Option<Ticket> {
        let mut record = StoredAgent::clone(&*self.current(id)?);
        change(&mut record);
        Some(self.stage(
            id,
            StagedChange::Update {
                record: Arc::new(record),
            },
        ))
    }

    /// Stages that an agent is forgotten; `None` when there is no such agent.
    pub fn remove(&mut self, id: AgentId) -> Option<Ticket> {
        self.current(id)?;
        Some(self.stage(id, StagedChange::Remove))
    }

    /// Makes a change visible that storage now has.
    pub fn publish(&mut self, ticket: Ticket, now: Moment) -> Option<Granted> {
        self.unstage(&ticket);
        match ticket.change {
            StagedChange::Register {
                record,
                brings_report,
            } => Some(self.apply_registration(record, brings_report, now)),
            StagedChange::Update { record } => {
                self.apply_update(record, now);
                None
            }
            StagedChange::Remove => {
                self.apply_removal(ticket.id);
                None
            }
        }
    }

    /// Forgets a change that storage refused.
    pub fn abandon(&mut self, ticket: &Ticket) {
        self.unstage(ticket);
        let Some(refused) = ticket.record() else {
            return;
        };
        let endpoint = SocketAddr::new(refused.ip_address, refused.port);
        let kept = self
            .current(ticket.id)
            .map(|r| SocketAddr::new(r.ip_address, r.port));
        if kept != Some(endpoint) {
            self.by_endpoint.remove(&(endpoint, ticket.id));
        }
    }

    /// Returns the records that should be saved: those heard of or changed since the last save.
    ///
    /// A record with a change on its way to storage is left out, so as not to overwrite it.
    pub fn take_unsaved(&mut self, now: Moment) -> Vec<Change> {
        let staged = &self.staged;
        let unsaved = self.records.iter_mut().filter(|(id, record)| {
            (record.unsaved || record.lease.is_some()) && !staged.contains_key(id)
        });
        unsaved
            .map(|(_, record)| {
                record.unsaved = false;
                Change::Put(record.to_save(now))
            })
            .collect()
    }

    /// Returns one agent.
    pub fn get(&self, id: AgentId, now: Moment) -> Option<AgentSnapshot> {
        self.records.get(&id).map(|record| record.snapshot(now))
    }

    /// Returns all agents, sorted by id.
    pub fn snapshot(&self, now: Moment) -> Vec<AgentSnapshot> {
        self.records
            .values()
            .map(|record| record.snapshot(now))
            .collect()
    }

    /// Returns a number that changes with everything visible but the times last seen and the load
    /// figures.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns how many agents are known, online, and only presumed online since a restart.
    pub fn counts(&self) -> Counts {
        Counts {
            known: self.records.len(),
            online: self.online,
            presumed: self.presumed,
        }
    }

    /// Returns the candidates among the agents: those that are routable.
    pub fn routable(
        &self,
    ) -> impl Iterator<Item = (&Arc<StoredAgent>, &Arc<std::sync::atomic::AtomicU32>)> {
        self.records
            .values()
            .filter(|record| record.unroutable().is_none())
            .map(|record| (&record.stored, &record.in_flight))
    }

    /// Takes what has happened since the last call.
    pub fn take_transitions(&mut self) -> Vec<Transition> {
        std::mem::take(&mut self.transitions)
    }

    /// Returns whose registration this is: by id, by endpoint for those without one, or a new id.
    fn identify(&self, new: &NewAgent) -> Result<AgentId, RegisterError> {
        if let Some(id) = new.id {
            return Ok(id);
        }
        let endpoint = new.endpoint();
        let smallest = AgentId::from_u128(0);
        let at_endpoint = self
            .by_endpoint
            .range((Bound::Included((endpoint, smallest)), Bound::Unbounded))
            .take_while(|(other, _)| *other == endpoint);
        let mut taken = false;
        for (_, id) in at_endpoint {
            let Some(known) = self.current(*id) else {
                continue;
            };
            if new.may_act_for(&known) {
                return Ok(*id);
            }
            taken |= self
                .records
                .get(id)
                .is_some_and(|record| record.lease.is_some());
        }
        if taken {
            Err(RegisterError::WrongSecret)
        } else {
            Ok(AgentId::new())
        }
    }

    /// Returns the newest record of an agent, whether it is durable yet or not.
    fn current(&self, id: AgentId) -> Option<Arc<StoredAgent>> {
        match self.staged.get(&id) {
            Some(ticket) => ticket.record().map(Arc::clone),
            None => self
                .records
                .get(&id)
                .map(|record| Arc::clone(&record.stored)),
        }
    }

    fn is_refused(&self, id: AgentId, new: &NewAgent) -> bool {
        let refused = self
            .records
            .get(&id)
            .and_then(|record| record.refused_session);
        refused.is_some() && refused == new.session
    }

    fn stage(&mut self, id: AgentId, change: StagedChange) -> Ticket {
        self.next_version += 1;
        let ticket = Ticket {
            id,
            version: self.next_version,
            change,
        };
        self.staged.insert(id, ticket.clone());
        ticket
    }

    fn unstage(&mut self, ticket: &Ticket) {
        let is_newest = self
            .staged
            .get(&ticket.id)
            .is_some_and(|s| s.version == ticket.version);
        if is_newest {
            self.staged.remove(&ticket.id);
        }
    }

    fn apply_registration(
        &mut self,
        next: Arc<StoredAgent>,
        brings_report: bool,
        now: Moment,
    ) -> Granted {
        let id = next.id;
        let is_new = !self.records.contains_key(&id);
        let record = self
            .records
            .entry(id)
            .or_insert_with(|| AgentRecord::new(Arc::clone(&next)));
        let was_online = record.lease.is_some();
        let before = Arc::clone(&record.stored);
        if next.session != before.session {
            record.contest = before
                .session
                .filter(|_| was_online)
                .map(|earlier| Contest {
                    earlier,
                    since: now.mono,
                    heartbeats_of_earlier: 0,
                });
            record.seq = 0;
        }
        let moved = !is_new && (next.ip_address, next.port) != (before.ip_address, before.port);
        if moved {
            self.by_endpoint.remove(&(record.endpoint(), id));
            record.reach = Reach::Unverified;
        }
        let changed = !is_unchanged(&before, &next) || before.runtime != next.runtime;
        record.stored = next;
        if !brings_report && !is_new {
            record.keep_report_of(&before);
        }
        record.leaving = false;
        record.unsaved = true;
        let epoch = record.stored.epoch;
        let terms = self.renew_lease(id, now.mono);
        self.schedule_reach_unless_reached(id, now.mono);
        match (is_new, was_online) {
            (true, _) => self.note(id, now, Transition::Joined),
            (false, false) => self.note(id, now, Transition::Returned),
            (false, true) if changed => self.note(id, now, Transition::Changed),
            (false, true) => {}
        }
        Granted {
            id,
            epoch,
            terms,
            is_new,
        }
    }

    fn apply_update(&mut self, next: Arc<StoredAgent>, now: Moment) {
        let id = next.id;
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let before = std::mem::replace(&mut record.stored, next);
        record.keep_report_of(&before);
        if record.stored.left_at.is_some() && record.lease.is_some() {
            self.set_lease(id, None);
            self.note(id, now, Transition::Left);
        } else {
            self.note(id, now, Transition::Changed);
        }
    }

    fn apply_removal(&mut self, id: AgentId) {
        self.set_lease(id, None);
        let Some(record) = self.records.remove(&id) else {
            return;
        };
        self.by_endpoint.remove(&(record.endpoint(), id));
        self.revision += 1;
        self.transitions.push(Transition::Removed(id));
    }

    /// Sets or ends a lease and keeps the counts and the deadlines in step with it.
    fn set_lease(&mut self, id: AgentId, lease: Option<Lease>) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        match (record.lease.is_some(), lease.is_some()) {
            (false, true) => self.online += 1,
            (true, false) => {
                self.online -= 1;
                self.presumed -= usize::from(record.last_seen.is_none());
            }
            (false, false) | (true, true) => {}
        }
        record.lease = lease;
        let Some(deadline) = lease.map(|lease| lease.deadline()) else {
            return;
        };
        match record.scheduled {
            Some(scheduled) if scheduled <= deadline => return,
            Some(scheduled) => {
                self.deadlines.remove(&(scheduled, id));
            }
            None => {}
        }
        record.scheduled = Some(deadline);
        self.deadlines.insert((deadline, id));
    }

    fn note(&mut self, id: AgentId, now: Moment, kind: impl FnOnce(AgentSnapshot) -> Transition) {
        self.revision += 1;
        self.announce(id, now, kind);
    }

    /// Tells what happened where nothing is kept by revision.
    fn announce(
        &mut self,
        id: AgentId,
        now: Moment,
        kind: impl FnOnce(AgentSnapshot) -> Transition,
    ) {
        if let Some(record) = self.records.get(&id) {
            self.transitions.push(kind(record.snapshot(now)));
        }
    }
}

/// How many agents there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that are known.
    pub known: usize,
    /// Those whose lease runs.
    pub online: usize,
    /// Those of them that have not been heard of since the coordinator started.
    pub presumed: usize,
}

#[cfg(test)]
mod tests;
