//! Which agents get no requests for a while because they failed. Pure.
//!
//! An agent that failed is held down, twice as long each time, then gets one request at a time
//! until one succeeds. What it did is forgotten only after it has worked for a while, so that one
//! that fails again soon goes on where it was.

use std::time::Duration;

use tokio::time::Instant;

/// The first hold-down; linkerd's figure.
pub const HOLD_MIN: Duration = Duration::from_secs(1);
/// The longest hold-down: a machine that is back is found within a minute.
pub const HOLD_MAX: Duration = Duration::from_mins(1);
/// One server error may be the request's fault; so many in a row are the agent's.
const ERRORS_IN_A_ROW: u32 = 5;

/// What is remembered of an agent that has failed.
#[derive(Debug, Clone, Default)]
pub struct Ejection {
    errors: u32,
    hold: Option<Hold>,
}

#[derive(Debug, Clone, Copy)]
struct Hold {
    since: Instant,
    length: Duration,
    /// When it answered for the first time after the hold-down.
    works_since: Option<Instant>,
}

/// What an agent may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Whatever it can take.
    Good,
    /// One request at a time.
    Probation,
    /// Nothing before this moment.
    Held(Instant),
}

impl Ejection {
    /// Returns what the agent may get.
    pub fn standing(&self, now: Instant) -> Standing {
        match self.hold {
            Some(hold) if hold.until() > now => Standing::Held(hold.until()),
            Some(hold) if hold.works_since.is_none() => Standing::Probation,
            Some(_) | None => Standing::Good,
        }
    }

    /// Takes a request that was begun at `started` and failed; returns whether it ejects the agent.
    ///
    /// What was begun before the agent was ejected tells nothing new.
    pub fn failed(&mut self, started: Instant, now: Instant) -> bool {
        if self.hold.is_some_and(|hold| started < hold.since) {
            return false;
        }
        let length = match self.hold {
            Some(hold) if !hold.is_over(now) => (hold.length * 2).min(HOLD_MAX),
            Some(_) | None => HOLD_MIN,
        };
        self.errors = 0;
        self.hold = Some(Hold {
            since: now,
            length,
            works_since: None,
        });
        true
    }

    /// Takes a request that ended in a server error; returns whether it ejects the agent.
    pub fn erred(&mut self, started: Instant, now: Instant) -> bool {
        self.errors += 1;
        let on_probation = self.standing(now) == Standing::Probation;
        (on_probation || self.errors >= ERRORS_IN_A_ROW) && self.failed(started, now)
    }

    /// Takes a request that was begun at `started` and succeeded.
    pub fn succeeded(&mut self, started: Instant, now: Instant) {
        self.errors = 0;
        if let Some(hold) = &mut self.hold
            && started >= hold.since
        {
            // A success in spite of the hold-down, as in a panic, ends it.
            hold.works_since = hold.works_since.or(Some(now));
        }
        if self.hold.is_some_and(|hold| hold.is_over(now)) {
            self.hold = None;
        }
    }

    /// Returns whether nothing is left that would have to be remembered.
    pub fn is_forgotten(&self, now: Instant) -> bool {
        self.errors == 0 && self.hold.is_none_or(|hold| hold.is_over(now))
    }
}

impl Hold {
    fn until(&self) -> Instant {
        self.works_since.unwrap_or(self.since + self.length)
    }

    /// Returns whether it has worked for so long that a new failure is a new story.
    fn is_over(&self, now: Instant) -> bool {
        self.works_since
            .is_some_and(|works| now.saturating_duration_since(works) >= self.length * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(ejection: &Ejection, now: Instant) -> Option<Duration> {
        match ejection.standing(now) {
            Standing::Held(until) => Some(until - now),
            Standing::Good | Standing::Probation => None,
        }
    }

    #[test]
    fn hold_down_doubles_with_each_failure_up_to_a_minute() {
        let mut ejection = Ejection::default();
        let mut now = Instant::now();
        let mut lengths = Vec::new();

        for _ in 0..8 {
            assert!(ejection.failed(now, now));
            let length = held(&ejection, now).unwrap();
            lengths.push(length.as_secs());
            now += length;
            assert_eq!(ejection.standing(now), Standing::Probation);
        }

        assert_eq!(lengths, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn requests_that_fail_together_count_once() {
        let mut ejection = Ejection::default();
        let begun = Instant::now();
        let now = begun + SECOND;

        assert!(ejection.failed(begun, now));
        for _ in 0..9 {
            assert!(!ejection.failed(begun, now + SECOND / 2));
        }

        assert_eq!(held(&ejection, now), Some(SECOND));
    }

    #[test]
    fn success_ends_the_probation() {
        let mut ejection = Ejection::default();
        let now = Instant::now();
        ejection.failed(now, now);
        let later = now + SECOND;

        ejection.succeeded(later, later);

        assert_eq!(ejection.standing(later), Standing::Good);
    }

    #[test]
    fn success_that_was_begun_before_the_failure_proves_nothing() {
        let mut ejection = Ejection::default();
        let begun = Instant::now();
        let now = begun + SECOND;
        ejection.failed(now, now);

        ejection.succeeded(begun, now + SECOND * 2);

        assert_eq!(ejection.standing(now + SECOND * 2), Standing::Probation);
    }

    #[test]
    fn agent_that_fails_again_soon_goes_on_where_it_was() {
        let mut ejection = Ejection::default();
        let mut now = Instant::now();
        for _ in 0..4 {
            ejection.failed(now, now);
            now += held(&ejection, now).unwrap();
        }
        ejection.succeeded(now, now);
        let soon = now + SECOND * 15;
        let mut flapping = ejection.clone();
        flapping.failed(soon, soon);
        let late = now + SECOND * 16;
        ejection.failed(late, late);

        assert_eq!(held(&flapping, soon), Some(SECOND * 16));
        assert_eq!(
            held(&ejection, late),
            Some(SECOND),
            "it had worked for long enough"
        );
    }

    #[test]
    fn server_errors_eject_only_in_a_row() {
        let mut ejection = Ejection::default();
        let now = Instant::now();

        for _ in 0..10 {
            for _ in 0..4 {
                assert!(!ejection.erred(now, now));
            }
            ejection.succeeded(now, now);
        }
        let in_a_row: Vec<bool> = (0..5).map(|_| ejection.erred(now, now)).collect();

        assert_eq!(in_a_row, [false, false, false, false, true]);
    }

    #[test]
    fn server_error_on_probation_ejects_at_once() {
        let mut ejection = Ejection::default();
        let now = Instant::now();
        ejection.failed(now, now);
        let later = now + SECOND;

        assert!(ejection.erred(later, later));
        assert_eq!(held(&ejection, later), Some(SECOND * 2));
    }

    proptest! {
        #[test]
        fn hold_downs_stay_in_range_and_what_works_is_forgotten(
            steps in proptest::collection::vec((0_u64..90_000, 0_u8..3), 0..40),
        ) {
            let mut ejection = Ejection::default();
            let mut now = Instant::now();
            for (pause, step) in steps {
                now += Duration::from_millis(pause);
                match step {
                    0 => assert!(ejection.failed(now, now)),
                    1 => ejection.errors = u32::from(!ejection.erred(now, now)),
                    _ => ejection.succeeded(now, now),
                }
                if let Some(left) = held(&ejection, now) {
                    prop_assert!(left <= HOLD_MAX);
                }
            }
            now += HOLD_MAX;
            ejection.succeeded(now, now);
            prop_assert_eq!(ejection.standing(now), Standing::Good);
            prop_assert!(ejection.is_forgotten(now + HOLD_MAX * 2));
        }
    }
}
