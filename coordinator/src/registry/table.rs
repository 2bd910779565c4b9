//! The collection of agents: pure, synchronous, every method takes the moment it happens at.
//!
//! What must be durable first goes through [`staging`]. Deadlines are lazy: a renewed lease leaves
//! its old entry in the ordered set, which is corrected when it comes up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use self::staging::Edit;
use super::agent::{AgentRecord, Contest, Moment, Reach};
use super::candidates::{Candidates, Catalogue};
use super::lease::{Lease, LeasePolicy};
use super::registration::{Granted, NewAgent, RegisterError, is_unchanged};
use super::routing::RoutingChanges;
use super::snapshot::AgentSnapshot;
use super::transition::Transition;
use crate::storage::agent::StoredAgent;

mod reach;
mod renewal;
mod staging;
mod sweep;
mod tunnel;

pub use reach::ReachCheck;
pub use renewal::{RenewError, Renewed};
pub use staging::{Registration, Ticket};
pub use tunnel::TunnelError;

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
    catalogue: Catalogue,
    routing_changes: RoutingChanges,
    next_version: u64,
    transitions: Vec<Transition>,
    save_soon: bool,
    /// The coordinator was away, so that nobody is taken offline before.
    lenient_until: Option<Instant>,
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
            catalogue: Catalogue::default(),
            routing_changes: RoutingChanges::new(),
            next_version: 0,
            transitions: Vec::new(),
            save_soon: false,
            lenient_until: None,
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
            record.awaited_since = Some(now.mono);
            if record.stored.verified {
                record.reach = Reach::Reachable;
            }
            self.by_endpoint.extend(place_of(&record.stored));
            self.records.insert(id, record);
            if presumed {
                self.presumed += 1;
                self.set_lease(id, Some(Lease::presume(terms, now.mono, grace)));
                self.schedule_reach(id, now.mono);
            }
            self.route(id);
        }
        self.revision += 1;
    }

    /// Takes the records that should be saved.
    ///
    /// A record with a change on its way to storage is left out, so as not to overwrite it.
    pub fn take_unsaved(&mut self, which: Unsaved, now: Moment) -> Vec<Arc<StoredAgent>> {
        let staged = &self.staged;
        let unsaved = self.records.iter_mut().filter(|(id, record)| {
            let is_due = match which {
                Unsaved::Changed => record.unsaved,
                Unsaved::HeardOf => record.unsaved || record.lease.is_some(),
            };
            is_due && !staged.contains_key(id)
        });
        unsaved
            .map(|(_, record)| {
                record.unsaved = false;
                record.to_save(now)
            })
            .collect()
    }

    /// Puts back what [`Self::take_unsaved`] took and storage refused.
    pub fn put_back_unsaved(&mut self, refused: &[Arc<StoredAgent>]) {
        for stored in refused {
            if let Some(record) = self.records.get_mut(&stored.id) {
                record.unsaved = true;
            }
        }
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

    /// Returns a number that changes with everything visible but times last seen, load figures and
    /// in-flight counts, which change all the time.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the models that routable agents have.
    pub fn candidates(&mut self) -> Arc<Candidates> {
        self.catalogue.candidates()
    }

    /// Returns the records of the agents that may get requests, sorted by id.
    pub fn routable(&self) -> Vec<Arc<StoredAgent>> {
        let routable = self
            .records
            .values()
            .filter(|record| record.unroutable().is_none());
        routable.map(|record| Arc::clone(&record.stored)).collect()
    }

    /// Takes what has changed for the balancer since the last call.
    pub fn take_routing_changes(&mut self) -> RoutingChanges {
        std::mem::take(&mut self.routing_changes)
    }

    /// Notes whether the balancer gives an agent no requests for a while.
    pub fn set_ejected(&mut self, id: AgentId, is_ejected: bool, now: Moment) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let was = record.unroutable();
        record.is_ejected = is_ejected;
        if was != record.unroutable() {
            self.note(id, now, Transition::RoutabilityChanged);
        }
    }

    /// Returns how many agents are known, online, and only presumed online since a restart.
    pub fn counts(&self) -> Counts {
        Counts {
            known: self.records.len(),
            online: self.online,
            presumed: self.presumed,
        }
    }

    /// Returns how many agents get no requests, by the code of the reason.
    pub fn unroutable(&self) -> BTreeMap<String, usize> {
        let mut agents = HashMap::<_, usize>::new();
        for reason in self.records.values().filter_map(AgentRecord::unroutable) {
            *agents.entry(reason).or_default() += 1;
        }
        let named = agents.into_iter();
        named
            .map(|(reason, agents)| (reason.to_string(), agents))
            .collect()
    }

    /// Returns whether something should be saved soon, since the last call: an agent is back, so
    /// that its time last seen in the file no longer tells that it lives, or serves other models.
    pub fn take_save_soon(&mut self) -> bool {
        std::mem::take(&mut self.save_soon)
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
        let mut taken = false;
        for id in new
            .endpoint()
            .into_iter()
            .flat_map(|at| self.at_endpoint(at))
        {
            let staged = self.staged.get(&id).map(Ticket::staged_record);
            let published = self.records.get(&id).map(|record| &record.stored);
            let Some(known) = staged.unwrap_or(published) else {
                continue;
            };
            if new.may_act_for(known) {
                return Ok(id);
            }
            taken |= self
                .records
                .get(&id)
                .is_some_and(|record| record.lease.is_some());
        }
        if taken {
            Err(RegisterError::WrongSecret)
        } else {
            Ok(AgentId::new())
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
        let (was_online, was_kept) = (record.lease.is_some(), record.warning().is_some());
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
        }
        record.seq = 0;
        record.registrations += 1;
        record.awaited_since = Some(now.mono);
        let moved = !is_new && next.endpoint() != before.endpoint();
        if moved {
            if let Some(place) = place_of(&before) {
                self.by_endpoint.remove(&place);
            }
            record.reach = Reach::Unverified;
        }
        let changed = !is_unchanged(&before, &next) || before.runtime != next.runtime;
        record.stored = next;
        if !brings_report && !is_new {
            record.keep_report_of(&before);
        }
        record.leaving = false;
        record.unsaved = true;
        self.save_soon |= !is_new && before.runtime != record.stored.runtime;
        let (place, epoch) = (place_of(&record.stored), record.stored.epoch);
        self.by_endpoint.extend(place);
        if let Some((endpoint, id)) = place.filter(|_| is_new || moved) {
            self.warn_of_shared_endpoint(endpoint, id);
        }
        let terms = self.renew_lease(id, now.mono);
        self.schedule_reach_unless_reached(id, now.mono);
        match (is_new, was_online) {
            (true, _) => self.note(id, now, Transition::Joined),
            (false, false) => self.note(id, now, Transition::Returned),
            (false, true) if was_kept => self.note(id, now, Transition::Returned),
            (false, true) if changed => self.note(id, now, Transition::Changed),
            (false, true) => self.route(id),
        }
        Granted {
            id,
            epoch,
            terms,
            is_new,
        }
    }

    /// Notes that two agents front one runtime, as when an agent is started twice.
    fn warn_of_shared_endpoint(&mut self, endpoint: SocketAddr, id: AgentId) {
        let others = self.at_endpoint(endpoint).filter(|other| *other != id);
        let online =
            others.filter(|other| self.records.get(other).is_some_and(|r| r.lease.is_some()));
        let shared: Vec<AgentId> = online.take(1).collect();
        let warnings = shared.into_iter().map(|other| Transition::EndpointShared {
            endpoint,
            id,
            other,
        });
        self.transitions.extend(warnings);
    }

    fn at_endpoint(&self, endpoint: SocketAddr) -> impl Iterator<Item = AgentId> {
        let smallest = AgentId::from_u128(0);
        self.by_endpoint
            .range((Bound::Included((endpoint, smallest)), Bound::Unbounded))
            .take_while(move |(other, _)| *other == endpoint)
            .map(|(_, id)| *id)
    }

    fn apply_edit(&mut self, id: AgentId, edit: &Edit, now: Moment) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let had_left = record.stored.left_at.is_some();
        edit.apply(Arc::make_mut(&mut record.stored));
        record.unsaved = true;
        if record.stored.left_at.is_some() && !had_left {
            record.awaited_since = Some(now.mono);
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
        if let Some(place) = place_of(&record.stored) {
            self.by_endpoint.remove(&place);
        }
        if let Some(scheduled) = record.scheduled {
            self.deadlines.remove(&(scheduled, id));
        }
        if let Some(due) = record.next_reach_check {
            self.reach_queue.remove(&(due, id));
        }
        self.revision += 1;
        self.route(id);
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
        let Some(due) = lease.map(|lease| lease.next_decision()) else {
            return;
        };
        match record.scheduled {
            Some(scheduled) if scheduled <= due => return,
            Some(scheduled) => {
                self.deadlines.remove(&(scheduled, id));
            }
            None => {}
        }
        record.scheduled = Some(due);
        self.deadlines.insert((due, id));
    }

    /// Notes that an agent changed in a way that may matter for routing.
    fn note(&mut self, id: AgentId, now: Moment, kind: impl FnOnce(AgentSnapshot) -> Transition) {
        self.revision += 1;
        self.note_load(id, now, kind);
    }

    /// Has the lists and the balancer learn what has changed about an agent.
    fn route(&mut self, id: AgentId) {
        let record = self.records.get(&id);
        let routable = record.filter(|record| record.unroutable_but_for_ejection().is_none());
        self.catalogue
            .set(id, routable.map(|record| &*record.stored));
        let facts = record.map(AgentRecord::routing_facts);
        self.routing_changes.insert(id, facts);
    }

    /// Notes that an agent's load figures changed.
    fn note_load(
        &mut self,
        id: AgentId,
        now: Moment,
        kind: impl FnOnce(AgentSnapshot) -> Transition,
    ) {
        self.route(id);
        if let Some(record) = self.records.get(&id) {
            self.transitions.push(kind(record.snapshot(now)));
        }
    }
}

/// Returns where an agent stands among the endpoints, if its runtime is dialled.
fn place_of(stored: &StoredAgent) -> Option<(SocketAddr, AgentId)> {
    stored.endpoint().map(|endpoint| (endpoint, stored.id))
}

/// Which records to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsaved {
    /// Those of which something changed.
    Changed,
    /// Also those that are online, for their times last seen.
    HeardOf,
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
