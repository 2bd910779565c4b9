//! When a failing store is tried again; pure.

use std::time::Duration;

use tokio::time::Instant;

/// Pauses that double from the shortest to the longest, and start over after a success.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    pause: Option<Duration>,
    retry_at: Option<Instant>,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            pause: None,
            retry_at: None,
        }
    }

    /// Returns when the next try is due; `None` while all is well.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(super) fn failed(&mut self, now: Instant) {
        let pause = self.pause.map_or(self.min, |pause| pause.saturating_mul(2));
        let pause = pause.min(self.max);
        self.pause = Some(pause);
        self.retry_at = Some(now + pause);
    }

    pub(super) fn succeeded(&mut self) {
        self.pause = None;
        self.retry_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_over_after_a_success() {
        let now = Instant::now();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        assert_eq!(backoff.retry_at(), None);

        let mut seconds = Vec::new();
        for _ in 0..7 {
            backoff.failed(now);
            seconds.push(backoff.retry_at().unwrap().duration_since(now).as_secs());
        }
        backoff.succeeded();
        assert_eq!(backoff.retry_at(), None);
        backoff.failed(now);

        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.retry_at(), Some(now + Duration::from_secs(1)));
    }
}
