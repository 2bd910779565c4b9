//! How long something took, counted in steps that are fine enough to say which share took how long. Pure
//! but for its atomics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two has four steps, from 1 ms to six days.
const STEPS_PER_OCTAVE: u32 = 4;
const STEPS: usize = 120;

/// Counts since the start.
#[derive(Debug)]
pub struct Times([AtomicU64; STEPS]);

/// The counts of one moment.
#[derive(Debug, Clone)]
pub struct TimesSeen([u64; STEPS]);

impl Default for Times {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; STEPS])
    }
}

impl Times {
    /// Counts one.
    pub(super) fn observe(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.0[step_of(millis)].fetch_add(1, Ordering::Relaxed);
    }

    /// Reads all counts.
    pub fn read(&self) -> TimesSeen {
        TimesSeen(std::array::from_fn(|step| {
            self.0[step].load(Ordering::Relaxed)
        }))
    }
}

impl TimesSeen {
    /// Returns within how many milliseconds `share` of what came after `before` was done; `None`:
    /// nothing did.
    #[expect(clippy::cast_precision_loss, reason = "a time that is drawn")]
    pub fn quantile_since(&self, before: &Self, share: f32) -> Option<f32> {
        let since = |step: usize| self.0[step].saturating_sub(before.0[step]) as f32;
        let all: f32 = (0..STEPS).map(since).sum();
        let wanted = all * share;
        let mut passed = 0.0;
        for step in 0..STEPS {
            let here = since(step);
            if here > 0.0 && passed + here >= wanted {
                let (from, to) = (start_of(step), start_of(step + 1));
                return Some(from + (to - from) * ((wanted - passed) / here).clamp(0.0, 1.0));
            }
            passed += here;
        }
        None
    }
}

/// Returns in which step so many milliseconds are counted.
fn step_of(millis: u64) -> usize {
    let millis = millis.max(1);
    let octave = millis.ilog2();
    // The two bits after the highest one.
    let part = u32::try_from(((u128::from(millis) << 2) >> octave) & 3).unwrap_or(0);
    let step = octave * STEPS_PER_OCTAVE + part;
    usize::try_from(step).map_or(STEPS - 1, |step| step.min(STEPS - 1))
}

/// Returns from how many milliseconds on a step counts.
#[expect(clippy::cast_precision_loss, reason = "a step is a small number")]
fn start_of(step: usize) -> f32 {
    let per_octave = STEPS_PER_OCTAVE as usize;
    let (octave, part) = (step / per_octave, step % per_octave);
    (per_octave + part) as f32 / per_octave as f32 * (octave as f32).exp2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn seen(times: &Times, millis: &[u64]) -> TimesSeen {
        for millis in millis {
            times.observe(Duration::from_millis(*millis));
        }
        times.read()
    }

    #[rstest]
    #[case(0)]
    #[case(1)]
    #[case(3)]
    #[case(250)]
    #[case(1_023)]
    #[case(1_024)]
    #[case(60_000)]
    fn time_is_counted_in_a_step_that_holds_it(#[case] millis: u16) {
        let step = step_of(millis.into());

        let time = f32::from(millis.max(1));
        assert!(start_of(step) <= time);
        assert!(time < start_of(step + 1));
    }

    #[test]
    fn all_times_have_a_step() {
        assert_eq!(step_of(u64::MAX), STEPS - 1);
    }

    #[test]
    fn share_is_told_of_what_came_since_and_of_nothing_else() {
        let times = Times::default();
        let slow_start = seen(&times, &[60_000; 50]);

        let later = seen(&times, &[&[100; 90][..], &[900; 10][..]].concat());

        let p95 = later.quantile_since(&slow_start, 0.95).unwrap();
        let half = later.quantile_since(&slow_start, 0.5).unwrap();
        assert!((768.0..=1_024.0).contains(&p95), "{p95}");
        assert!((96.0..=112.0).contains(&half), "{half}");
    }

    #[test]
    fn nothing_has_no_share() {
        let times = Times::default();
        let before = seen(&times, &[5]);

        assert_eq!(times.read().quantile_since(&before, 0.95), None);
    }
}
