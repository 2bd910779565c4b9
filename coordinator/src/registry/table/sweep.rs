//! Leases that run out: who is suspect, who is offline, and when the coordinator should doubt itself
//! instead.

use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use tokio::time::Instant;

use super::super::agent::Moment;
use super::super::lease::{Lease, Trust, pause_grace};
use super::super::transition::Transition;
use super::AgentTable;

/// Below this many silent agents a mass event cannot be told from single failures.
const ISOLATION_MIN: usize = 3;

impl AgentTable {
    /// Suspects every agent whose heartbeat is clearly missing, and has its address tried; marks as
    /// offline every one whose lease has run out, unless its runtime has answered meanwhile.
    ///
    /// When at least half of the fleet is silent at once, the coordinator suspects itself first:
    /// their leases are prolonged once by a TTL.
    pub fn sweep(&mut self, now: Moment) {
        let mut expired = Vec::new();
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now.mono {
                break;
            }
            self.deadlines.pop_first();
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            record.scheduled = None;
            match record.lease {
                Some(lease) if lease.is_expired(now.mono) => expired.push(id),
                Some(lease) if lease.next_decision() <= now.mono => {
                    self.suspect(id, lease, now.mono);
                }
                Some(lease) => self.set_lease(id, Some(lease)),
                None => {}
            }
        }
        if expired.is_empty() {
            return;
        }
        self.prolong_if_isolated(now.mono);
        for id in expired {
            let Some(record) = self.records.get(&id) else {
                continue;
            };
            let Some(lease) = record.lease else { continue };
            if lease.is_expired(now.mono) {
                self.expire(id, lease, now);
            } else {
                self.set_lease(id, Some(lease));
            }
        }
    }

    /// Has others asked before an agent that may be gone, and finds out whether its runtime is
    /// there. Where no address can be tried, nothing will answer.
    fn suspect(&mut self, id: AgentId, mut lease: Lease, now: Instant) {
        lease.suspect();
        self.set_lease(id, Some(lease));
        self.schedule_reach(id, now);
        self.route(id);
    }

    /// Ends a lease that has run out, or keeps an agent whose runtime answers.
    fn expire(&mut self, id: AgentId, mut lease: Lease, now: Moment) {
        let Some(record) = self.records.get(&id) else {
            return;
        };
        let seen = record.last_seen.unwrap_or(now.mono);
        let silent_for = now.mono.saturating_duration_since(seen);
        let was_kept = lease.trust() == Trust::Kept;
        if !lease.keep(now.mono) {
            self.set_lease(id, None);
            self.note(id, now, |agent| Transition::Expired { agent, silent_for });
            return;
        }
        self.set_lease(id, Some(lease));
        self.schedule_reach(id, now.mono);
        if !was_kept {
            self.note(id, now, |agent| Transition::HeartbeatsMissing {
                agent,
                silent_for,
            });
        }
    }

    /// Gives every online agent a fresh lease, because the coordinator itself was away for so long.
    pub fn restart_leases(&mut self, now: Instant, away: Duration) {
        let until = now + pause_grace(away);
        self.lenient_until = Some(until);
        let online: Vec<_> = self
            .records
            .iter()
            .filter_map(|(id, record)| Some((*id, record.lease?)))
            .collect();
        for (id, mut lease) in online {
            lease.restart(now);
            lease.last_until(until);
            self.set_lease(id, Some(lease));
        }
    }

    fn prolong_if_isolated(&mut self, now: Instant) {
        let overdue: Vec<_> = self
            .records
            .iter()
            .filter_map(|(id, record)| Some((*id, record.lease?)))
            .filter(|(_, lease)| lease.is_overdue(now) && !lease.has_benefit_of_doubt())
            .collect();
        if overdue.len() < ISOLATION_MIN || overdue.len() * 2 < self.online {
            return;
        }
        let online = self.online;
        self.transitions.push(Transition::IsolationSuspected {
            overdue: overdue.len(),
            online,
        });
        for (id, mut lease) in overdue {
            lease.prolong(now);
            self.set_lease(id, Some(lease));
        }
    }
}
