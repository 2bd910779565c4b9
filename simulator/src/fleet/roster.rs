//! When each simulated agent does what. Pure: every method takes `now`.

use std::collections::BTreeSet;
use std::time::Duration;

use ollama_coordinator_common::backoff::Backoff;
use ollama_coordinator_common::protocol::register::LeaseTerms;
use rand::Rng as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

/// Delays between attempts to register, as a real agent's.
const REGISTER_MIN: Duration = Duration::from_millis(500);
const REGISTER_MAX: Duration = Duration::from_secs(30);
/// Delays between attempts to renew within the lease, as a real agent's.
const RENEW_MIN: Duration = Duration::from_secs(1);
const RENEW_MAX: Duration = Duration::from_secs(4);
/// A heartbeat comes up to a tenth of the interval earlier or later.
const JITTER: f64 = 0.1;

/// All agents of a fleet and what is due next.
#[derive(Debug)]
pub(super) struct Roster {
    agents: Vec<AgentState>,
    due: BTreeSet<(Instant, usize)>,
    rng: SmallRng,
    /// Agents that are silenced or leaving and still have a request on the way.
    unsettled: usize,
    registered: usize,
}

#[derive(Debug, Clone, Copy)]
struct AgentState {
    phase: Phase,
    due: Option<Instant>,
    has_job: bool,
    is_silenced: bool,
    epoch: u64,
    seq: u64,
    last_delay: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unregistered,
    Registered,
    Leaving,
    Gone,
}

/// One request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) agent: usize,
    pub(super) call: AgentCall,
    pub(super) due: Instant,
}

/// What an agent asks of the coordinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AgentCall {
    Register { last_epoch: u64 },
    Heartbeat { epoch: u64, seq: u64 },
    Goodbye,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallOutcome {
    /// Registered or renewed on these terms.
    Granted { epoch: u64, lease: LeaseTerms },
    /// The coordinator does not know the agent.
    Unknown,
    /// Anything else; a wait may have been asked for.
    Failed { retry_after: Option<Duration> },
    /// The goodbye was heard.
    Left,
}

impl Roster {
    pub(super) fn new(agents: usize, spread: Duration, mut rng: SmallRng, now: Instant) -> Self {
        let mut roster = Self {
            agents: Vec::with_capacity(agents),
            due: BTreeSet::new(),
            unsettled: 0,
            registered: 0,
            rng: rng.clone(),
        };
        for index in 0..agents {
            let due = now + spread.mul_f64(rng.random());
            roster.agents.push(AgentState {
                phase: Phase::Unregistered,
                due: Some(due),
                has_job: false,
                is_silenced: false,
                epoch: 0,
                seq: 0,
                last_delay: None,
            });
            roster.due.insert((due, index));
        }
        roster.rng = rng;
        roster
    }

    /// Returns how many agents hold a lease, as far as they know.
    pub(super) fn registered(&self) -> usize {
        self.registered
    }

    /// Returns when something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Returns whether no silenced or leaving agent has a request on the way.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Takes one request that is due; the agent has no other until this one is settled.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Job> {
        let (due, index) = *self.due.first()?;
        if due > now {
            return None;
        }
        self.due.pop_first();
        let agent = &mut self.agents[index];
        agent.due = None;
        agent.has_job = true;
        let call = match agent.phase {
            Phase::Unregistered => AgentCall::Register {
                last_epoch: agent.epoch,
            },
            Phase::Registered => {
                agent.seq += 1;
                AgentCall::Heartbeat {
                    epoch: agent.epoch,
                    seq: agent.seq,
                }
            }
            Phase::Leaving | Phase::Gone => AgentCall::Goodbye,
        };
        Some(Job {
            agent: index,
            call,
            due,
        })
    }

    /// Takes note of how a request ended and plans the agent's next one.
    pub(super) fn settle(&mut self, job: &Job, outcome: CallOutcome, now: Instant) {
        let agent = &mut self.agents[job.agent];
        agent.has_job = false;
        let leaves = agent.phase == Phase::Leaving;
        let delay = if job.call == AgentCall::Goodbye {
            None
        } else {
            Some(self.plan(job, outcome, now))
        };
        let agent = &mut self.agents[job.agent];
        match (leaves, agent.is_silenced, delay) {
            (true, _, None) => {
                agent.phase = Phase::Gone;
                self.registered -= 1;
                self.unsettled -= 1;
            }
            (true, _, Some(_)) => self.set_due(job.agent, now),
            (false, true, _) => self.unsettled -= 1,
            (false, false, Some(due)) => self.set_due(job.agent, due),
            (false, false, None) => {}
        }
    }

    /// Silences the first `count` agents.
    pub(super) fn pause(&mut self, count: usize) {
        for index in 0..count.min(self.agents.len()) {
            let agent = &mut self.agents[index];
            if agent.is_silenced || agent.phase == Phase::Gone || agent.phase == Phase::Leaving {
                continue;
            }
            agent.is_silenced = true;
            self.unsettled += usize::from(agent.has_job);
            if let Some(due) = agent.due.take() {
                self.due.remove(&(due, index));
            }
        }
    }

    /// Lets silenced agents go on where they were.
    pub(super) fn resume(&mut self, now: Instant) {
        for index in 0..self.agents.len() {
            let agent = &mut self.agents[index];
            if !std::mem::take(&mut agent.is_silenced) {
                continue;
            }
            if agent.has_job {
                self.unsettled -= 1;
            } else {
                self.set_due(index, now);
            }
        }
    }

    /// Plans a goodbye for every registered agent and nothing more for the others.
    pub(super) fn leave(&mut self, now: Instant) {
        for index in 0..self.agents.len() {
            let agent = &mut self.agents[index];
            if agent.is_silenced || agent.phase == Phase::Leaving || agent.phase == Phase::Gone {
                continue;
            }
            if let Some(due) = agent.due.take() {
                self.due.remove(&(due, index));
            }
            if agent.phase == Phase::Unregistered && !agent.has_job {
                agent.phase = Phase::Gone;
                continue;
            }
            self.registered += usize::from(agent.phase == Phase::Unregistered);
            agent.phase = Phase::Leaving;
            self.unsettled += 1;
            if !agent.has_job {
                self.set_due(index, now);
            }
        }
    }

    fn plan(&mut self, job: &Job, outcome: CallOutcome, now: Instant) -> Instant {
        let agent = &mut self.agents[job.agent];
        let was_registered = agent.phase == Phase::Registered;
        match outcome {
            CallOutcome::Granted { epoch, lease } => {
                agent.last_delay = None;
                agent.epoch = epoch;
                if agent.phase == Phase::Unregistered {
                    agent.phase = Phase::Registered;
                    agent.seq = 0;
                    self.registered += 1;
                }
                let factor = self.rng.random_range(1.0 - JITTER..=1.0 + JITTER);
                let interval = Duration::from_millis(lease.heartbeat_interval_ms);
                let base = if was_registered { job.due } else { now };
                (base + interval.mul_f64(factor)).max(now)
            }
            CallOutcome::Unknown => {
                agent.last_delay = None;
                if was_registered {
                    agent.phase = Phase::Unregistered;
                    self.registered -= 1;
                    return now;
                }
                now + self.backoff(job, None)
            }
            CallOutcome::Failed { retry_after } => now + self.backoff(job, retry_after),
            CallOutcome::Left => now,
        }
    }

    fn backoff(&mut self, job: &Job, retry_after: Option<Duration>) -> Duration {
        let (min, max) = match job.call {
            AgentCall::Register { .. } => (REGISTER_MIN, REGISTER_MAX),
            AgentCall::Heartbeat { .. } | AgentCall::Goodbye => (RENEW_MIN, RENEW_MAX),
        };
        let backoff = Backoff::new(min, max).expect("the bounds are constants in order");
        let agent = &mut self.agents[job.agent];
        let delay = backoff.delay(agent.last_delay, &mut self.rng);
        agent.last_delay = Some(delay);
        retry_after.map_or(delay, |retry_after| retry_after.max(delay))
    }

    fn set_due(&mut self, index: usize, due: Instant) {
        self.agents[index].due = Some(due);
        self.due.insert((due, index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    const INTERVAL: Duration = Duration::from_secs(10);
    const GRANTED: CallOutcome = CallOutcome::Granted {
        epoch: 3,
        lease: LeaseTerms {
            heartbeat_interval_ms: 10_000,
            ttl_ms: 31_000,
        },
    };

    fn roster(agents: usize, now: Instant) -> Roster {
        Roster::new(agents, Duration::ZERO, SmallRng::seed_from_u64(1), now)
    }

    fn settle_next(roster: &mut Roster, outcome: CallOutcome, now: Instant) -> Job {
        let job = roster.take_due(now).unwrap();
        roster.settle(&job, outcome, now);
        job
    }

    #[test]
    fn heartbeats_keep_the_interval_within_a_tenth_and_do_not_drift() {
        let start = Instant::now();
        let mut roster = roster(1, start);
        settle_next(&mut roster, GRANTED, start);
        let mut last = start;

        for seq in 1..=200 {
            let due = roster.next_due().unwrap();
            let gap = due - last;
            assert!(
                gap >= INTERVAL.mul_f64(0.9) && gap <= INTERVAL.mul_f64(1.1),
                "{gap:?}"
            );
            let job = settle_next(&mut roster, GRANTED, due + Duration::from_millis(300));
            assert_eq!(job.call, AgentCall::Heartbeat { epoch: 3, seq });
            last = due;
        }
    }

    #[test]
    fn first_registrations_are_spread() {
        let start = Instant::now();
        let spread = Duration::from_secs(8);
        let roster = Roster::new(1_000, spread, SmallRng::seed_from_u64(1), start);

        let first = roster.due.first().unwrap().0;
        let last = roster.due.last().unwrap().0;

        assert!(first < start + spread / 20);
        assert!(last > start + spread.mul_f64(0.95) && last <= start + spread);
    }

    #[test]
    fn forgotten_agent_registers_again_at_once() {
        let start = Instant::now();
        let mut roster = roster(1, start);
        settle_next(&mut roster, GRANTED, start);
        let later = start + INTERVAL * 2;
        settle_next(&mut roster, CallOutcome::Unknown, later);
        assert_eq!(roster.registered(), 0);

        let job = roster.take_due(later).unwrap();

        assert_eq!(job.call, AgentCall::Register { last_epoch: 3 });
    }

    #[test]
    fn failed_registration_waits_at_least_as_long_as_it_is_told() {
        let start = Instant::now();
        let mut roster = roster(1, start);
        let retry_after = Some(Duration::from_secs(40));

        settle_next(&mut roster, CallOutcome::Failed { retry_after }, start);

        assert!(roster.next_due().unwrap() >= start + Duration::from_secs(40));
    }

    #[test]
    fn silenced_agent_sends_nothing_until_resumed() {
        let start = Instant::now();
        let mut roster = roster(2, start);
        let outstanding = roster.take_due(start).unwrap();
        settle_next(&mut roster, GRANTED, start);

        roster.pause(2);
        assert!(!roster.is_settled());
        roster.settle(&outstanding, GRANTED, start);
        assert!(roster.is_settled());
        assert_eq!(roster.next_due(), None);

        roster.resume(start);
        assert!(roster.take_due(start).is_some() && roster.take_due(start).is_some());
    }

    #[test]
    fn every_registered_agent_says_goodbye_once() {
        let start = Instant::now();
        let mut roster = roster(3, start);
        settle_next(&mut roster, GRANTED, start);
        let outstanding = roster.take_due(start).unwrap();

        roster.leave(start);
        let goodbye = settle_next(&mut roster, CallOutcome::Left, start);
        roster.settle(&outstanding, GRANTED, start);
        let second = settle_next(&mut roster, CallOutcome::Left, start);

        assert_eq!(
            (goodbye.call, second.call),
            (AgentCall::Goodbye, AgentCall::Goodbye)
        );
        assert!(roster.is_settled() && roster.next_due().is_none());
        assert_eq!(roster.registered(), 0);
    }
}
