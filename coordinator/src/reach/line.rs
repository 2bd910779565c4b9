//! The order in which addresses are tried: machine by machine, few at once at each, so that one
//! machine whose addresses never answer delays only itself.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use ollama_coordinator_common::id::AgentId;

use crate::registry::table::ReachCheck;

/// How many addresses are tried at once.
const MAX_RUNNING: usize = 64;
/// How many of them may be on one machine.
const MAX_RUNNING_PER_IP: usize = 4;

/// Checks that wait for their turn, and how many are under way.
#[derive(Debug, Default)]
pub(super) struct Line {
    lanes: BTreeMap<IpAddr, Lane>,
    /// Where the check of each agent waits: an agent waits in one place.
    places: BTreeMap<AgentId, (IpAddr, u64)>,
    next_ticket: u64,
    /// The lanes that may be able to start a check, in turn; each at most once.
    ready: VecDeque<IpAddr>,
    running: usize,
}

/// What waits, by ticket, and runs at one IP address.
#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeMap<u64, ReachCheck>,
    running: usize,
    is_ready: bool,
}

impl Line {
    /// Puts a check in line; one that waits there for the same agent gives way to it.
    pub(super) fn push(&mut self, check: ReachCheck) {
        let ip = check.endpoint.ip();
        let ticket = match self.places.get(&check.id) {
            Some(&(earlier, ticket)) if earlier == ip => ticket,
            earlier => {
                if let Some(&(earlier, ticket)) = earlier
                    && let Some(lane) = self.lanes.get_mut(&earlier)
                {
                    lane.waiting.remove(&ticket);
                    self.settle(earlier);
                }
                self.next_ticket += 1;
                self.next_ticket
            }
        };
        self.places.insert(check.id, (ip, ticket));
        let lane = self.lanes.entry(ip).or_default();
        lane.waiting.insert(ticket, check);
        self.settle(ip);
    }

    /// Takes the next check that may start now.
    pub(super) fn start_next(&mut self) -> Option<ReachCheck> {
        while self.running < MAX_RUNNING {
            let ip = self.ready.pop_front()?;
            let lane = self.lanes.get_mut(&ip)?;
            lane.is_ready = false;
            let first = lane.waiting.pop_first();
            if first.is_some() {
                lane.running += 1;
                self.running += 1;
            }
            self.settle(ip);
            if let Some((_ticket, check)) = first {
                self.places.remove(&check.id);
                return Some(check);
            }
        }
        None
    }

    /// Notes that a check at `ip` has ended.
    pub(super) fn finished(&mut self, ip: IpAddr) {
        if let Some(lane) = self.lanes.get_mut(&ip) {
            lane.running -= 1;
            self.running -= 1;
            self.settle(ip);
        }
    }

    /// Puts a lane where it belongs after a change: among the ready ones, or away when empty.
    fn settle(&mut self, ip: IpAddr) {
        let Some(lane) = self.lanes.get_mut(&ip) else {
            return;
        };
        if lane.is_ready {
            return;
        }
        if lane.waiting.is_empty() {
            if lane.running == 0 {
                self.lanes.remove(&ip);
            }
        } else if lane.running < MAX_RUNNING_PER_IP {
            lane.is_ready = true;
            self.ready.push_back(ip);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use ollama_coordinator_common::protocol::runtime::RuntimeKind;

    use super::*;

    fn check(machine: u8, port: u16) -> ReachCheck {
        ReachCheck {
            id: AgentId::new(),
            endpoint: SocketAddr::from(([10, 0, 0, machine], port)),
            kind: RuntimeKind::Ollama,
            wants_report: false,
        }
    }

    fn start_all(line: &mut Line) -> Vec<ReachCheck> {
        std::iter::from_fn(|| line.start_next()).collect()
    }

    #[test]
    fn machine_with_many_addresses_does_not_hold_up_another() {
        let mut line = Line::default();
        for port in 1..=1_000 {
            line.push(check(1, port));
        }
        let other = check(2, 1);
        line.push(other);

        let started = start_all(&mut line);

        assert_eq!(started.len(), MAX_RUNNING_PER_IP + 1);
        assert_eq!(started[1], other);
    }

    #[test]
    fn finished_check_makes_room_for_the_next_one() {
        let mut line = Line::default();
        let checks: Vec<ReachCheck> = (1..=6).map(|port| check(1, port)).collect();
        for check in &checks {
            line.push(*check);
        }
        assert_eq!(start_all(&mut line), checks[..4]);

        line.finished(checks[2].endpoint.ip());

        assert_eq!(start_all(&mut line), checks[4..5]);
    }

    #[test]
    fn no_more_run_at_once_than_allowed_and_all_get_their_turn() {
        let mut line = Line::default();
        for machine in 0..=255 {
            line.push(check(machine, 1));
        }
        let mut started = 0;

        loop {
            let running = start_all(&mut line);
            assert!(running.len() <= MAX_RUNNING, "{}", running.len());
            if running.is_empty() {
                break;
            }
            started += running.len();
            for check in running {
                line.finished(check.endpoint.ip());
            }
        }

        assert_eq!(started, 256);
        assert!(line.lanes.is_empty() && line.ready.is_empty(), "{line:?}");
    }

    #[test]
    fn newer_check_of_an_agent_takes_the_place_of_the_waiting_one() {
        let earlier = check(1, 1);

        for elsewhere in [check(1, 2), check(2, 1)] {
            let mut line = Line::default();
            let later = ReachCheck {
                endpoint: elsewhere.endpoint,
                ..earlier
            };
            line.push(earlier);
            line.push(later);

            assert_eq!(start_all(&mut line), [later]);
            line.finished(later.endpoint.ip());
            assert!(line.lanes.is_empty() && line.places.is_empty(), "{line:?}");
        }
    }
}
