//! Which addresses have to be tried, and what was found there.

use std::net::SocketAddr;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeKind, RuntimeReport};
use tokio::time::Instant;

use super::super::agent::{Moment, Reach};
use super::super::transition::Transition;
use super::AgentTable;

/// The first wait after a failed check; doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(500);
/// The longest wait between checks.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// How often a runtime without an agent process is asked what it serves.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often the address of any other agent is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// More checks per second than this are spread over a longer time.
const MAX_CHECKS_PER_SECOND: u32 = 25;

/// An address that has to be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReachCheck {
    /// Whose address it is.
    pub id: AgentId,
    /// The address.
    pub endpoint: SocketAddr,
    /// What should answer there.
    pub kind: RuntimeKind,
    /// Whether nobody reports on the runtime, so that it has to be asked what it serves.
    pub wants_report: bool,
}

impl AgentTable {
    /// Takes up to `most` addresses whose turn it is.
    pub fn take_reach_checks(&mut self, now: Instant, most: usize) -> Vec<ReachCheck> {
        let mut checks = Vec::new();
        while let Some(&(due, id)) = self.reach_queue.first() {
            if due > now || checks.len() == most {
                break;
            }
            self.reach_queue.pop_first();
            let Some(record) = self.records.get_mut(&id) else {
                continue;
            };
            record.next_reach_check = None;
            let Some(endpoint) = record.stored.endpoint() else {
                continue;
            };
            if record.lease.is_none() {
                continue;
            }
            checks.push(ReachCheck {
                id,
                endpoint,
                kind: record.stored.runtime.kind,
                wants_report: !record.has_agent_process(),
            });
        }
        checks
    }

    /// Takes over what a check found; a check of an address the agent has left does not count.
    pub fn record_reach(&mut self, check: ReachCheck, found: Option<RuntimeReport>, now: Moment) {
        let Some(record) = self.records.get_mut(&check.id) else {
            return;
        };
        if record.stored.endpoint() != Some(check.endpoint) {
            return;
        }
        if let Some(lease) = &mut record.lease {
            lease.runtime_was_tried(found.is_some());
        }
        let was = record.unroutable();
        let mut changed = false;
        if let Some(report) = found {
            record.unsaved |= record.reach != Reach::Reachable;
            record.reach = Reach::Reachable;
            record.reach_failures = 0;
            let mut wait = TRY_AGAIN;
            if check.wants_report {
                changed = record.apply_report(report);
                wait = LOOK_AGAIN;
            }
            self.schedule_reach(check.id, now.mono + self.spread(wait));
        } else {
            let wait = RETRY_MIN
                .saturating_mul(1 << record.reach_failures.min(4))
                .min(RETRY_MAX);
            record.reach = Reach::Unreachable;
            record.reach_failures += 1;
            self.schedule_reach(check.id, now.mono + wait);
        }
        let is = self
            .records
            .get(&check.id)
            .and_then(super::AgentRecord::unroutable);
        if was != is {
            self.note(check.id, now, Transition::RoutabilityChanged);
        } else if changed {
            self.note(check.id, now, Transition::Changed);
        }
    }

    /// Takes over which models an agent's runtime says that it has.
    pub fn set_models(&mut self, id: AgentId, models: Vec<Model>, now: Moment) {
        let Some(record) = self.records.get_mut(&id) else {
            return;
        };
        let report = RuntimeReport {
            models,
            ..record.stored.runtime.clone()
        };
        if record.apply_report(report) {
            self.save_soon = true;
            self.note(id, now, Transition::Changed);
        }
    }

    /// Returns whether it is the turn of an address.
    pub fn is_reach_due(&self, now: Instant) -> bool {
        self.reach_queue.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Has an agent's address tried soon, because a request could not be sent there.
    pub fn doubt_reach(&mut self, id: AgentId, now: Instant) {
        self.schedule_reach(id, now);
    }

    fn spread(&self, wait: Duration) -> Duration {
        let online = u32::try_from(self.online).unwrap_or(u32::MAX);
        wait.max(Duration::from_secs(1).saturating_mul(online) / MAX_CHECKS_PER_SECOND)
    }

    /// Puts an agent's address in line for a check at `due`, or earlier if it stood there before.
    pub(super) fn schedule_reach(&mut self, id: AgentId, due: Instant) {
        let record = self.records.get_mut(&id);
        let Some(record) = record.filter(|record| record.stored.endpoint().is_some()) else {
            return;
        };
        match record.next_reach_check {
            Some(earlier) if earlier <= due => return,
            Some(later) => {
                self.reach_queue.remove(&(later, id));
            }
            None => {}
        }
        record.next_reach_check = Some(due);
        self.reach_queue.insert((due, id));
    }

    /// Puts an agent's address in line unless a runtime has answered there and an agent watches it.
    pub(super) fn schedule_reach_unless_reached(&mut self, id: AgentId, now: Instant) {
        let Some(record) = self.records.get(&id) else {
            return;
        };
        if record.reach != Reach::Reachable || !record.has_agent_process() {
            self.schedule_reach(id, now);
        }
    }
}
