//! Growing, jittered delays between attempts; pure, so that bounds can be tested.

use std::time::Duration;

use rand::Rng;

/// Decorrelated jitter: each delay is random between `min` and three times the one before, capped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    min: Duration,
    max: Duration,
}

impl Backoff {
    /// Makes a backoff whose delays lie between `min` and `max`.
    ///
    /// # Errors
    /// `min` must not be zero and not exceed `max`.
    pub const fn new(min: Duration, max: Duration) -> Result<Self, InvalidBackoff> {
        if min.is_zero() || min.as_nanos() > max.as_nanos() {
            return Err(InvalidBackoff { min, max });
        }
        Ok(Self { min, max })
    }

    /// Returns the delay that follows `previous`; `None` before the first attempt failed.
    pub fn delay(&self, previous: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let ceiling = previous
            .unwrap_or(self.min)
            .saturating_mul(3)
            .clamp(self.min, self.max);
        rng.random_range(self.min..=ceiling)
    }
}

/// A backoff needs a smallest delay above zero and not above the largest.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("backoff needs 0 < min <= max, not min {min:?} and max {max:?}")]
pub struct InvalidBackoff {
    min: Duration,
    max: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;

    proptest! {
        #[test]
        fn delays_stay_within_bounds_and_within_three_times_the_last(
            min_ms in 1_u64..5_000, extra_ms in 0_u64..60_000, seed: u64, attempts in 1_usize..50,
        ) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms + extra_ms));
            let backoff = Backoff::new(min, max).unwrap();
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut previous = None;

            for _ in 0..attempts {
                let delay = backoff.delay(previous, &mut rng);
                prop_assert!(min <= delay && delay <= max);
                prop_assert!(delay <= previous.unwrap_or(min) * 3);
                previous = Some(delay);
            }
        }
    }

    #[test]
    fn zero_and_crossed_bounds_are_refused() {
        assert!(Backoff::new(Duration::ZERO, Duration::from_secs(1)).is_err());
        assert!(Backoff::new(Duration::from_secs(2), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn huge_delays_do_not_overflow() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::MAX).unwrap();
        let mut rng = SmallRng::seed_from_u64(1);

        assert!(backoff.delay(Some(Duration::MAX), &mut rng) >= Duration::from_secs(1));
    }
}
