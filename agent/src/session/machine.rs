//! The session's rules: pure, so that every delay and bound can be tested.

use std::num::NonZeroU32;
use std::time::Duration;

use ollama_coordinator_common::backoff::Backoff;
use ollama_coordinator_common::protocol::register::LeaseTerms;
use rand::Rng as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::state::{
    Action, Connection, Coordinator, Ending, Event, Failure, Joining, Lease, LeaseHeld, Registered,
    Session,
};

/// After this many failed heartbeats in a row the connection is not trusted any more.
const FAILURES_PER_CONNECTION: u32 = 2;
const FIRST_INNER_RETRY: Duration = Duration::from_secs(1);
const LAST_INNER_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
const LONGEST_REJOIN_SPREAD: Duration = Duration::from_secs(10);

/// The operator's and the product's policy.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Delays between attempts to register, and between heartbeats once the lease has run out.
    pub backoff: Backoff,
    /// The delay after a refusal that another try does not cure.
    pub refused_retry: Duration,
    /// How many failed attempts to register in a row end the session.
    pub max_attempts: Option<NonZeroU32>,
    /// Caps the coordinator's interval.
    pub longest_interval: Option<Duration>,
}

/// Returns where `event` leads and what to do there.
pub fn step(
    session: Session,
    event: Event,
    now: Instant,
    rules: &Rules,
    rng: &mut SmallRng,
) -> (Session, Action) {
    let mut context = Context { now, rules, rng };
    match session {
        Session::Unregistered(joining) => context.unregistered(joining, event),
        Session::Registering(joining) => context.registering(joining, event),
        Session::Registered(registered) => context.registered(registered, event),
        Session::Leaving if event == Event::Left => stop(Ending::Stopped),
        Session::Leaving => (Session::Leaving, Action::Deregister),
        Session::Stopped => stop(Ending::Stopped),
    }
}

struct Context<'a> {
    now: Instant,
    rules: &'a Rules,
    rng: &'a mut SmallRng,
}

impl Context<'_> {
    fn unregistered(&mut self, joining: Joining, event: Event) -> (Session, Action) {
        match event {
            Event::Due => (
                Session::Registering(joining),
                Action::Register(Connection::Kept),
            ),
            Event::Woke => (
                Session::Registering(joining),
                Action::Register(Connection::Fresh),
            ),
            Event::IdentityReplaced => {
                let delay = self.rules.backoff.delay(joining.previous_delay, self.rng);
                self.attempt_after(delay, joining)
            }
            Event::StopRequested => leave(joining.lease_held),
            Event::Granted(_)
            | Event::Renewed { .. }
            | Event::Failed(_)
            | Event::AddressChanged
            | Event::News
            | Event::Left => (
                Session::Unregistered(joining),
                Action::WaitUntil(joining.next_at),
            ),
        }
    }

    fn registering(&mut self, joining: Joining, event: Event) -> (Session, Action) {
        match event {
            Event::Granted(terms) => self.granted(terms, Coordinator::Same),
            Event::Failed(failure) => self.not_registered(joining, failure),
            // The registration on its way may have arrived.
            Event::StopRequested => leave(LeaseHeld::Maybe),
            Event::Due
            | Event::Woke
            | Event::Renewed { .. }
            | Event::AddressChanged
            | Event::News
            | Event::IdentityReplaced
            | Event::Left => (
                Session::Registering(joining),
                Action::Register(Connection::Kept),
            ),
        }
    }

    fn registered(&mut self, registered: Registered, event: Event) -> (Session, Action) {
        let wait = Action::WaitUntil(registered.next_at);
        match event {
            Event::Due => beat(registered, connection_after(registered.failures)),
            Event::Woke => beat(registered, Connection::Fresh),
            Event::News if registered.failures == 0 => beat(registered, Connection::Kept),
            Event::Renewed { terms, coordinator } => self.granted(terms, coordinator),
            Event::Failed(failure) => self.not_renewed(registered, failure),
            Event::AddressChanged => {
                let joining = Joining::start(self.now, LeaseHeld::Maybe);
                (
                    Session::Registering(joining),
                    Action::Register(Connection::Kept),
                )
            }
            Event::StopRequested => leave(LeaseHeld::Maybe),
            Event::News | Event::Granted(_) | Event::IdentityReplaced | Event::Left => {
                (Session::Registered(registered), wait)
            }
        }
    }

    fn granted(&mut self, terms: LeaseTerms, coordinator: Coordinator) -> (Session, Action) {
        let lease = Lease::new(terms, self.rules.longest_interval);
        let delay = match coordinator {
            Coordinator::Same => lease.interval.mul_f64(self.rng.random_range(0.9..=1.1)),
            // Every agent owes this coordinator its whole report: not all at the same moment.
            Coordinator::Restarted => self.rng.random_range(Duration::ZERO..=lease.interval),
        };
        let next_at = self.now + delay;
        let registered = Registered {
            lease,
            renewed_at: self.now,
            failures: 0,
            previous_delay: None,
            next_at,
        };
        (Session::Registered(registered), Action::WaitUntil(next_at))
    }

    fn not_registered(&mut self, joining: Joining, failure: Failure) -> (Session, Action) {
        let attempts = joining.attempts.saturating_add(1);
        let joining = Joining {
            attempts,
            ..joining
        };
        if self
            .rules
            .max_attempts
            .is_some_and(|max| attempts >= max.get())
        {
            return stop(Ending::AttemptsUsed(attempts));
        }
        let delay = match failure {
            Failure::Unreachable | Failure::UnknownAgent => {
                self.rules.backoff.delay(joining.previous_delay, self.rng)
            }
            Failure::Busy { retry_after } => match retry_after {
                Some(asked) => self.at_least(asked),
                None => self.rules.backoff.delay(joining.previous_delay, self.rng),
            },
            Failure::Refused => self.rules.refused_retry,
            Failure::DuplicateIdentity => {
                return (Session::Unregistered(joining), Action::ReplaceIdentity);
            }
        };
        self.attempt_after(delay, joining)
    }

    fn not_renewed(&mut self, registered: Registered, failure: Failure) -> (Session, Action) {
        match failure {
            Failure::Unreachable => self.beat_after_failure(registered, None),
            Failure::Busy { retry_after } => self.beat_after_failure(registered, retry_after),
            Failure::UnknownAgent => {
                let spread = registered.lease.interval.min(LONGEST_REJOIN_SPREAD);
                let delay = self.rng.random_range(Duration::ZERO..=spread);
                self.attempt_after(delay, Joining::start(self.now, LeaseHeld::No))
            }
            Failure::DuplicateIdentity => {
                let joining = Joining::start(self.now, LeaseHeld::No);
                (Session::Unregistered(joining), Action::ReplaceIdentity)
            }
            Failure::Refused => {
                let joining = Joining::start(self.now, LeaseHeld::Maybe);
                self.attempt_after(self.rules.refused_retry, joining)
            }
        }
    }

    fn beat_after_failure(
        &mut self,
        registered: Registered,
        retry_after: Option<Duration>,
    ) -> (Session, Action) {
        let lease_end = registered.renewed_at + registered.lease.ttl;
        let remaining = lease_end.saturating_duration_since(self.now);
        let has_run_out = remaining.is_zero();
        let delay = match retry_after {
            Some(asked) => self.at_least(asked),
            None if has_run_out => self
                .rules
                .backoff
                .delay(registered.previous_delay, self.rng),
            None => self.inner_retry(registered, remaining),
        };
        let registered = Registered {
            failures: registered.failures.saturating_add(1),
            previous_delay: has_run_out.then_some(delay),
            next_at: self.now + delay,
            ..registered
        };
        (
            Session::Registered(registered),
            Action::WaitUntil(registered.next_at),
        )
    }

    /// Returns a delay that leaves time for another heartbeat within the lease.
    fn inner_retry(&mut self, registered: Registered, remaining: Duration) -> Duration {
        let first = FIRST_INNER_RETRY.min(registered.lease.interval);
        let planned = first.saturating_mul(1 << registered.failures.min(8));
        let jittered = planned.mul_f64(self.rng.random_range(0.8..=1.0));
        if jittered < remaining {
            jittered
        } else {
            (remaining / 2).max(LAST_INNER_RETRY)
        }
    }

    /// Returns what the coordinator asked for, bounded, and up to a tenth more.
    fn at_least(&mut self, asked: Duration) -> Duration {
        asked
            .min(LONGEST_RETRY_AFTER)
            .mul_f64(self.rng.random_range(1.0..=1.1))
    }

    fn attempt_after(&self, delay: Duration, joining: Joining) -> (Session, Action) {
        let next_at = self.now + delay;
        let joining = Joining {
            previous_delay: Some(delay),
            next_at,
            ..joining
        };
        (Session::Unregistered(joining), Action::WaitUntil(next_at))
    }
}

fn beat(registered: Registered, connection: Connection) -> (Session, Action) {
    let timeout = registered.lease.heartbeat_timeout();
    (
        Session::Registered(registered),
        Action::Heartbeat {
            connection,
            timeout,
        },
    )
}

fn connection_after(failures: u32) -> Connection {
    if failures >= FAILURES_PER_CONNECTION {
        Connection::Fresh
    } else {
        Connection::Kept
    }
}

fn leave(lease_held: LeaseHeld) -> (Session, Action) {
    match lease_held {
        LeaseHeld::Maybe => (Session::Leaving, Action::Deregister),
        LeaseHeld::No => stop(Ending::Stopped),
    }
}

fn stop(ending: Ending) -> (Session, Action) {
    (Session::Stopped, Action::Exit(ending))
}

#[cfg(test)]
mod tests;
