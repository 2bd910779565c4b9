//! How long an agent counts as alive, and how often it must say so. Pure arithmetic on a
//! monotonic clock.

use std::time::Duration;

use ollama_coordinator_common::protocol::register::LeaseTerms;
use tokio::time::Instant;

/// Total heartbeats per second that a growing fleet is slowed down to.
const MAX_HEARTBEATS_PER_SECOND: usize = 2_000;
/// The longest interval a large fleet is stretched to.
const MAX_INTERVAL: Duration = Duration::from_mins(1);
/// Above this interval two missed heartbeats are enough, because waiting for three takes too long.
const LONG_INTERVAL: Duration = Duration::from_secs(10);
/// How long a heartbeat may be late before its agent is suspect, where half of the TTL is not less.
const LATE: Duration = Duration::from_secs(5);
/// How many TTLs an answering runtime keeps its agent online when heartbeats are missing.
const KEPT_FOR: u32 = 5;
/// Silence that is tolerated after the coordinator itself was away for a moment, whatever the TTL.
const MIN_GRACE: Duration = Duration::from_secs(15);
/// The same after it was away for longer, or starts.
const MAX_GRACE: Duration = Duration::from_mins(1);

/// Decides the cadence: fast for small fleets, stretched as the fleet grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasePolicy {
    /// The interval of a small fleet.
    pub interval: Duration,
    /// A TTL fixed by the operator.
    pub fixed_ttl: Option<Duration>,
}

impl LeasePolicy {
    /// Returns the interval and TTL for a fleet of `online` agents.
    ///
    /// An interval shrinks at once and grows by at most a fifth per heartbeat, from `previous`, so
    /// that an agent that joins does not make the others overdue.
    pub fn terms(&self, online: usize, previous: Option<Duration>) -> Terms {
        let per_second = u32::try_from(MAX_HEARTBEATS_PER_SECOND).unwrap_or(u32::MAX);
        let agents = u32::try_from(online).unwrap_or(u32::MAX);
        let stretched = Duration::from_secs(1).saturating_mul(agents) / per_second;
        let mut interval = stretched.clamp(self.interval, MAX_INTERVAL.max(self.interval));
        if let Some(previous) = previous {
            interval = interval.min((previous + previous / 5).max(self.interval));
        }
        if let Some(ttl) = self.fixed_ttl {
            interval = interval.min(ttl / 3);
        }
        Terms {
            interval,
            ttl: self.fixed_ttl.unwrap_or_else(|| ttl_for(interval)),
        }
    }

    /// Returns how long agents of an earlier run are presumed alive after a start.
    pub fn restart_grace(&self) -> Duration {
        let ttl = self.fixed_ttl.unwrap_or_else(|| ttl_for(self.interval));
        (ttl * 2).max(MAX_GRACE)
    }
}

/// Returns for how long nobody is taken offline after the coordinator was `away`: agents that got no
/// answers try again after pauses that grow while it is away.
pub fn pause_grace(away: Duration) -> Duration {
    away.clamp(MIN_GRACE, MAX_GRACE)
}

/// At least three heartbeats may be missed, two when they are far apart.
fn ttl_for(interval: Duration) -> Duration {
    if interval <= LONG_INTERVAL {
        interval * 3 + Duration::from_secs(1)
    } else {
        interval * 2 + Duration::from_secs(10)
    }
}

/// A cadence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time between heartbeats.
    pub interval: Duration,
    /// Silence after which an agent is offline.
    pub ttl: Duration,
}

impl Terms {
    /// Returns the silence after which an agent is suspect: at the latest when half of its TTL is
    /// over, which leaves the other half to find out whether its runtime answers.
    fn suspect_after(&self) -> Duration {
        (self.interval + LATE).min(self.ttl / 2)
    }
}

impl From<Terms> for LeaseTerms {
    fn from(terms: Terms) -> Self {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self {
            heartbeat_interval_ms: ms(terms.interval),
            ttl_ms: ms(terms.ttl),
        }
    }
}

/// The time for which an agent counts as alive without another word from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    terms: Terms,
    renewed_at: Instant,
    deadline: Instant,
    benefit_of_doubt: bool,
    suspicion: Option<Suspicion>,
}

/// What is known of an agent whose heartbeat is clearly missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Suspicion {
    /// Whether its runtime was the last to answer, since it became suspect or its TTL was over.
    is_answered: bool,
    /// When its TTL was first over.
    kept_since: Option<Instant>,
}

/// How far an agent whose lease runs is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Its heartbeats come.
    Full,
    /// One is clearly missing: its runtime is tried, and others are asked first.
    Suspect,
    /// Its TTL is over, but its runtime answers.
    Kept,
}

impl Lease {
    /// Grants a lease that starts `now`.
    pub fn grant(terms: Terms, now: Instant) -> Self {
        Self {
            terms,
            renewed_at: now,
            deadline: now + terms.ttl,
            benefit_of_doubt: false,
            suspicion: None,
        }
    }

    /// Grants a lease to an agent known from an earlier run, that may be alive.
    pub fn presume(terms: Terms, now: Instant, grace: Duration) -> Self {
        Self {
            terms,
            renewed_at: now,
            deadline: now + grace,
            benefit_of_doubt: true,
            suspicion: None,
        }
    }

    /// Returns when something is to be decided: that the agent is suspect, else that it is offline.
    pub fn next_decision(&self) -> Instant {
        if self.suspicion.is_some() {
            self.deadline
        } else {
            let left = self.terms.ttl.saturating_sub(self.terms.suspect_after());
            self.deadline - left
        }
    }

    /// Returns how far the agent is trusted.
    pub fn trust(&self) -> Trust {
        match self.suspicion {
            None => Trust::Full,
            Some(suspicion) if suspicion.kept_since.is_none() => Trust::Suspect,
            Some(_) => Trust::Kept,
        }
    }

    /// Suspects the agent, because a heartbeat is clearly missing.
    pub fn suspect(&mut self) {
        self.suspicion.get_or_insert(Suspicion {
            is_answered: false,
            kept_since: None,
        });
    }

    /// Notes what was found at the address of an agent; it matters only when that is suspect.
    pub fn runtime_was_tried(&mut self, has_answered: bool) {
        if let Some(suspicion) = &mut self.suspicion {
            suspicion.is_answered = has_answered;
        }
    }

    /// Prolongs a lease that has run out by one TTL if its runtime has answered meanwhile, a few
    /// times at most; returns whether it did.
    pub fn keep(&mut self, now: Instant) -> bool {
        let Some(suspicion) = self.suspicion.as_mut().filter(|s| s.is_answered) else {
            return false;
        };
        let since = *suspicion.kept_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.terms.ttl * KEPT_FOR {
            return false;
        }
        suspicion.is_answered = false;
        self.deadline = now + self.terms.ttl;
        true
    }

    /// Returns the terms that were granted.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Returns whether the lease has run out.
    pub fn is_expired(&self, now: Instant) -> bool {
        now >= self.deadline
    }

    /// Returns whether a heartbeat is clearly missing, though the lease may still run.
    pub fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.renewed_at) > self.terms.interval * 3 / 2
    }

    /// Returns whether the lease was already prolonged without a sign of life.
    pub fn has_benefit_of_doubt(&self) -> bool {
        self.benefit_of_doubt
    }

    /// Prolongs the lease by one TTL, because the coordinator may be the one that is cut off.
    pub fn prolong(&mut self, now: Instant) {
        self.benefit_of_doubt = true;
        self.deadline = self.deadline.max(now + self.terms.ttl);
    }

    /// Suspects the agent and lets the lease run out at `deadline` at the latest, because there are
    /// signs of death.
    pub fn shorten(&mut self, deadline: Instant) {
        self.suspect();
        self.deadline = self.deadline.min(deadline);
    }

    /// Starts the lease anew after the coordinator itself was away and could hear nobody.
    pub fn restart(&mut self, now: Instant) {
        self.renewed_at = now;
        self.last_until(now + self.terms.ttl);
    }

    /// Lets the lease run until a moment at least.
    pub fn last_until(&mut self, moment: Instant) {
        self.deadline = self.deadline.max(moment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const DEFAULT: LeasePolicy = LeasePolicy {
        interval: Duration::from_secs(1),
        fixed_ttl: None,
    };

    #[rstest]
    #[case(0, 1_000, 4_000)]
    #[case(2_000, 1_000, 4_000)]
    #[case(10_000, 5_000, 16_000)]
    #[case(20_000, 10_000, 31_000)]
    #[case(100_000, 50_000, 110_000)]
    #[case(1_000_000, 60_000, 130_000)]
    fn cadence_stretches_with_the_fleet(
        #[case] online: usize,
        #[case] interval_ms: u64,
        #[case] ttl_ms: u64,
    ) {
        let terms = LeaseTerms::from(DEFAULT.terms(online, None));

        assert_eq!(
            (terms.heartbeat_interval_ms, terms.ttl_ms),
            (interval_ms, ttl_ms)
        );
    }

    #[test]
    fn interval_grows_by_a_fifth_and_shrinks_at_once() {
        let second = Duration::from_secs(1);

        assert_eq!(
            DEFAULT.terms(100_000, Some(second)).interval,
            Duration::from_millis(1_200)
        );
        assert_eq!(DEFAULT.terms(1, Some(second * 50)).interval, second);
    }

    #[rstest]
    #[case(None, 60)]
    #[case(Some(20), 60)]
    #[case(Some(40), 80)]
    fn restarted_coordinator_waits_for_two_ttls_and_a_minute_at_least(
        #[case] ttl_seconds: Option<u64>,
        #[case] grace_seconds: u64,
    ) {
        let policy = LeasePolicy {
            fixed_ttl: ttl_seconds.map(Duration::from_secs),
            ..DEFAULT
        };

        assert_eq!(policy.restart_grace(), Duration::from_secs(grace_seconds));
    }

    #[test]
    fn fixed_ttl_always_allows_three_heartbeats() {
        let policy = LeasePolicy {
            fixed_ttl: Some(Duration::from_secs(9)),
            ..DEFAULT
        };

        assert_eq!(
            policy.terms(1_000_000, None).interval,
            Duration::from_secs(3)
        );
    }

    proptest! {
        #[test]
        fn ttl_is_always_more_than_two_intervals(online in 0_usize..3_000_000) {
            let terms = DEFAULT.terms(online, None);

            prop_assert!(terms.ttl > terms.interval * 2);
            let agents = Duration::from_millis(u64::try_from(online).unwrap());
            let bounded = agents <= terms.interval * 2_001 / 1_000;
            prop_assert!(bounded || terms.interval == MAX_INTERVAL);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lease_expires_exactly_at_its_deadline() {
        let now = Instant::now();
        let lease = Lease::grant(DEFAULT.terms(1, None), now);

        assert!(!lease.is_expired(now + Duration::from_millis(3_999)));
        assert!(lease.is_expired(now + Duration::from_secs(4)));
        assert!(!lease.is_overdue(now + Duration::from_millis(1_500)));
        assert!(lease.is_overdue(now + Duration::from_millis(1_501)));
    }

    #[rstest]
    #[case(1_000, 4_000, 2_000)]
    #[case(5_000, 16_000, 8_000)]
    #[case(10_000, 31_000, 15_000)]
    #[case(60_000, 130_000, 65_000)]
    #[case(1_000, 60_000, 6_000)]
    #[tokio::test(start_paused = true)]
    async fn agent_is_suspect_early_enough_to_be_tried_before_its_ttl_is_over(
        #[case] interval_ms: u64,
        #[case] ttl_ms: u64,
        #[case] suspect_ms: u64,
    ) {
        let terms = Terms {
            interval: Duration::from_millis(interval_ms),
            ttl: Duration::from_millis(ttl_ms),
        };
        let now = Instant::now();
        let mut lease = Lease::grant(terms, now);

        assert_eq!(
            lease.next_decision(),
            now + Duration::from_millis(suspect_ms)
        );
        assert!(terms.suspect_after() >= terms.interval);
        lease.suspect();
        assert_eq!(lease.next_decision(), now + terms.ttl);
    }
}
