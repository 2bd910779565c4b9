//! How fast agents answer, learned from the answers themselves. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::permit::Pace;

/// How much the latest answer counts: about the last five do.
const WEIGHT: f32 = 0.2;
/// What was learned so long ago counts no more, because the machine may have changed.
const MEMORY: Duration = Duration::from_mins(10);
/// Answers of different length are compared as if each had so many chunks.
const TYPICAL_CHUNKS: f32 = 100.0;
/// Fewer chunks than this tell nothing of the pace.
const MIN_CHUNKS: u64 = 4;

/// A moving average of the time that an answer takes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Speed {
    seconds: f32,
    learned: Option<Instant>,
}

impl Speed {
    /// Takes one more answer.
    pub fn learn(&mut self, seconds: f32, now: Instant) {
        if self.is_known(now) {
            self.seconds += WEIGHT * (seconds - self.seconds);
        } else {
            self.seconds = seconds;
        }
        self.learned = Some(now);
    }

    /// Returns how long answers take as a multiple of `average`; 1 when that is not known.
    pub fn relative_to(&self, average: &Self, now: Instant) -> f32 {
        if self.is_known(now) && average.is_known(now) && average.seconds > 0.0 {
            (self.seconds / average.seconds).clamp(0.01, 100.0)
        } else {
            1.0
        }
    }

    fn is_known(&self, now: Instant) -> bool {
        self.learned
            .is_some_and(|learned| now.saturating_duration_since(learned) < MEMORY)
    }
}

/// Returns how long a typical answer takes at this pace.
#[expect(clippy::cast_precision_loss, reason = "a rough figure is enough")]
pub fn typical_seconds(pace: Pace) -> f32 {
    let first = pace.first_byte.as_secs_f32();
    if pace.chunks < MIN_CHUNKS {
        return first + pace.streaming.as_secs_f32();
    }
    first + pace.streaming.as_secs_f32() / pace.chunks as f32 * TYPICAL_CHUNKS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(chunks: u64, ms: u64) -> Pace {
        Pace {
            first_byte: Duration::from_millis(100),
            chunks,
            streaming: Duration::from_millis(chunks * ms),
        }
    }

    #[test]
    fn length_of_an_answer_does_not_matter() {
        let (short, long) = (
            typical_seconds(pace(10, 20)),
            typical_seconds(pace(1_000, 20)),
        );

        assert!((short - long).abs() < 0.001, "{short} {long}");
    }

    #[test]
    fn speed_follows_what_answers_show_and_is_forgotten_in_time() {
        let now = Instant::now();
        let (mut fast, mut average) = (Speed::default(), Speed::default());
        assert!((fast.relative_to(&average, now) - 1.0).abs() < f32::EPSILON);

        for _ in 0..50 {
            average.learn(typical_seconds(pace(100, 40)), now);
            fast.learn(typical_seconds(pace(100, 10)), now);
        }

        let relative = fast.relative_to(&average, now);
        assert!((0.2..0.3).contains(&relative), "{relative}");
        let later = now + MEMORY;
        assert!((fast.relative_to(&average, later) - 1.0).abs() < f32::EPSILON);
    }
}
