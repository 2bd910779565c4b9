//! How long to wait before a tunnel is opened again; pure, so that bounds can be tested.

use std::time::Duration;

use ollama_coordinator_common::backoff::Backoff;
use rand::Rng as _;
use rand::rngs::SmallRng;

use crate::config::Timing;
use crate::coordinator::CoordinatorError;

/// A tunnel that was up this long has settled: the next loss is another matter.
const SETTLED: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pause {
    /// How long.
    pub(super) delay: Duration,
    /// What it means meanwhile that the coordinator renews the lease.
    pub(super) renewal: Renewal,
}

/// What a renewed lease means to one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Renewal {
    /// Nothing.
    Ignored,
    /// There is nothing more to wait for: the coordinator is back.
    Suffices,
    /// One has to come, even after the delay.
    Needed,
}

impl Pause {
    /// The session may be about to find out the same: it should look at once.
    pub(super) const FIRST_REFUSAL: Self = Self {
        delay: Duration::ZERO,
        renewal: Renewal::Needed,
    };
}

/// Remembers what went wrong in a row.
#[derive(Debug)]
pub(super) struct Patience {
    first: Duration,
    losses: Backoff,
    refusals: Backoff,
    previous: Option<Duration>,
    was_refused: bool,
    rng: SmallRng,
}

impl Patience {
    pub(super) fn new(timing: &Timing, rng: SmallRng) -> Self {
        let first = timing.tunnel_retry.max(SHORTEST);
        let backoff = |longest: Duration| {
            Backoff::new(first, longest.max(first)).expect("the bounds are in order")
        };
        Self {
            first,
            losses: backoff(timing.tunnel_longest_retry),
            refusals: backoff(timing.refused_retry),
            previous: None,
            was_refused: false,
            rng,
        }
    }

    /// Forgets what went wrong.
    pub(super) fn reset(&mut self) {
        self.previous = None;
        self.was_refused = false;
    }

    pub(super) fn after_loss(&mut self, up_for: Duration) -> Pause {
        self.was_refused = false;
        if up_for >= SETTLED {
            self.previous = None;
        }
        Pause {
            delay: self.next(),
            renewal: Renewal::Ignored,
        }
    }

    pub(super) fn after_failure(&mut self, error: &CoordinatorError) -> Pause {
        match error {
            CoordinatorError::Unreachable(_) => Pause {
                delay: self.next(),
                renewal: Renewal::Suffices,
            },
            CoordinatorError::Busy { retry_after, .. } => {
                let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                Pause {
                    delay: self.next().max(asked),
                    renewal: Renewal::Ignored,
                }
            }
            CoordinatorError::UnknownAgent
            | CoordinatorError::WrongSecret
            | CoordinatorError::DuplicateIdentity
            | CoordinatorError::Invalid { .. }
            | CoordinatorError::NotUpgraded
            | CoordinatorError::TooOld { .. }
            | CoordinatorError::NotACoordinator(_) => self.after_refusal(),
        }
    }

    fn after_refusal(&mut self) -> Pause {
        if !std::mem::replace(&mut self.was_refused, true) {
            return Pause::FIRST_REFUSAL;
        }
        let delay = self.refusals.delay(self.previous, &mut self.rng);
        self.previous = Some(delay);
        Pause {
            delay,
            renewal: Renewal::Needed,
        }
    }

    fn next(&mut self) -> Duration {
        let Some(previous) = self.previous else {
            self.previous = Some(self.first);
            return self.rng.random_range(Duration::ZERO..=self.first);
        };
        let delay = self.losses.delay(Some(previous), &mut self.rng);
        self.previous = Some(delay);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ollama_coordinator_common::http::HttpError;
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    fn patience(seed: u64) -> Patience {
        Patience::new(&Timing::default(), SmallRng::seed_from_u64(seed))
    }

    fn unreachable() -> CoordinatorError {
        CoordinatorError::Unreachable(HttpError::TooLarge { limit: 0 })
    }

    proptest! {
        #[test]
        fn first_retry_comes_within_a_quarter_second_and_no_later_one_after_five(seed: u64) {
            let mut patience = patience(seed);

            let first = patience.after_loss(SETTLED);
            prop_assert!(first.delay <= Duration::from_millis(250));
            for _ in 0..50 {
                let pause = patience.after_failure(&unreachable());
                prop_assert!(pause.delay >= Duration::from_millis(250));
                prop_assert!(pause.delay <= Duration::from_secs(5));
                prop_assert_eq!(pause.renewal, Renewal::Suffices);
            }
        }

        #[test]
        fn refusals_wait_for_the_session_and_longer_each_time(seed: u64) {
            let mut patience = patience(seed);

            let refused = || CoordinatorError::UnknownAgent;
            prop_assert_eq!(patience.after_failure(&refused()), Pause::FIRST_REFUSAL);
            for _ in 0..50 {
                let pause = patience.after_failure(&refused());
                prop_assert!(pause.delay >= Duration::from_millis(250));
                prop_assert!(pause.delay <= Duration::from_secs(30));
                prop_assert_eq!(pause.renewal, Renewal::Needed);
            }
            patience.reset();
            prop_assert_eq!(patience.after_failure(&refused()), Pause::FIRST_REFUSAL);
        }
    }

    #[test]
    fn tunnels_that_break_soon_are_opened_ever_more_rarely() {
        let mut patience = patience(1);

        let delays: Vec<_> = (0..200)
            .map(|_| patience.after_loss(Duration::from_millis(5)).delay)
            .collect();

        assert!(delays[0] <= Duration::from_millis(250), "{delays:?}");
        let later: Duration = delays[100..].iter().sum();
        assert!(later / 100 > Duration::from_secs(1), "{delays:?}");
    }

    #[test]
    fn coordinator_that_asks_for_time_gets_it() {
        let busy = CoordinatorError::Busy {
            detail: "restarting".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
        };

        assert_eq!(
            patience(1).after_failure(&busy).delay,
            Duration::from_secs(7)
        );
    }
}
