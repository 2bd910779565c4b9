//! Notices that the machine slept: the wall clock went on, the monotonic clock did not.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// The clocks are set by small steps now and then; sleeping is longer.
const TOLERANCE: Duration = Duration::from_secs(3);

/// Both clocks at one moment.
#[derive(Debug)]
pub(super) struct Clocks {
    wall: SystemTime,
    monotonic: Instant,
}

impl Clocks {
    pub(super) fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            monotonic: Instant::now(),
        }
    }

    /// Returns whether the clocks went apart since the last call.
    pub(super) fn have_diverged(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        let wall = self.wall.duration_since(before.wall);
        diverged(wall.unwrap_or_default(), self.monotonic - before.monotonic)
    }
}

/// A wall clock that was set back says nothing about sleep.
fn diverged(wall: Duration, monotonic: Duration) -> bool {
    wall.saturating_sub(monotonic) > TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(5, 5, false)]
    #[case(7, 5, false)]
    #[case(3_600, 5, true)]
    #[case(0, 5, false)]
    fn sleep_is_told_from_clock_corrections(
        #[case] wall_seconds: u64,
        #[case] monotonic_seconds: u64,
        #[case] expected: bool,
    ) {
        let wall = Duration::from_secs(wall_seconds);

        assert_eq!(
            diverged(wall, Duration::from_secs(monotonic_seconds)),
            expected
        );
    }
}
