//! What a fleet has done and how long it took, counted without locks on the way.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// Each power of two is split into this many buckets: figures are exact to about 6 %.
const BUCKETS_PER_OCTAVE: u64 = 16;
const BUCKETS: usize = 976;

/// Counters of a running fleet.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) registrations_failed: AtomicU64,
    pub(super) heartbeats_sent: AtomicU64,
    pub(super) heartbeats_ok: AtomicU64,
    pub(super) heartbeats_failed: AtomicU64,
    pub(super) unknown_agent: AtomicU64,
    pub(super) goodbyes_ok: AtomicU64,
    pub(super) heartbeat_latency: Histogram,
    pub(super) lag: Histogram,
    registration_latencies: Mutex<Vec<Duration>>,
    registered: AtomicUsize,
    epochs: Vec<AtomicU64>,
}

/// Everything a fleet counts, at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct FleetSummary {
    /// Agents that hold a lease, as far as they know.
    pub registered: usize,
    /// Agents whose registration was answered at least once.
    pub acknowledged: usize,
    /// Registrations that were answered; an agent may register again.
    pub registrations_ok: usize,
    /// Registrations that failed or were refused.
    pub registrations_failed: u64,
    /// From sending a registration to its answer.
    pub registration_latency: LatencySummary,
    /// Heartbeats that were sent.
    pub heartbeats_sent: u64,
    /// Heartbeats that renewed a lease.
    pub heartbeats_ok: u64,
    /// Heartbeats that failed or were refused, other than by 404.
    pub heartbeats_failed: u64,
    /// Heartbeats that were answered 404 although the agent's registration had been answered.
    pub unknown_agent: u64,
    /// From sending a heartbeat to its answer.
    pub heartbeat_latency: LatencySummary,
    /// How much later than planned requests went out: the fleet's own slowness.
    pub lag: LatencySummary,
    /// Goodbyes that were heard.
    pub goodbyes_ok: u64,
}

/// How long many things took, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LatencySummary {
    /// How many were measured.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_us: u64,
    /// 99 of 100 took no longer.
    pub p99_us: u64,
    /// None took longer.
    pub max_us: u64,
}

impl LatencySummary {
    /// Sums up single measurements.
    pub fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |per_cent: usize| {
            let rank = (latencies.len() * per_cent).div_ceil(100).max(1);
            latencies.get(rank - 1).copied().map_or(0, micros)
        };
        Self {
            count: latencies.len() as u64,
            p50_us: at(50),
            p99_us: at(99),
            max_us: at(100),
        }
    }
}

impl Stats {
    pub(super) fn new(agents: usize) -> Self {
        Self {
            registrations_failed: AtomicU64::new(0),
            heartbeats_sent: AtomicU64::new(0),
            heartbeats_ok: AtomicU64::new(0),
            heartbeats_failed: AtomicU64::new(0),
            unknown_agent: AtomicU64::new(0),
            goodbyes_ok: AtomicU64::new(0),
            heartbeat_latency: Histogram::default(),
            lag: Histogram::default(),
            registration_latencies: Mutex::default(),
            registered: AtomicUsize::new(0),
            epochs: (0..agents).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn acknowledge(&self, agent: usize, epoch: u64, latency: Duration) {
        self.epochs[agent].store(epoch.max(1), Ordering::Relaxed);
        self.registration_latencies.lock().push(latency);
    }

    pub(super) fn set_registered(&self, registered: usize) {
        self.registered.store(registered, Ordering::Relaxed);
    }

    /// Returns each agent's last epoch; zero for one that was never acknowledged.
    pub(super) fn epochs(&self) -> impl Iterator<Item = u64> {
        self.epochs.iter().map(read)
    }

    pub(super) fn summary(&self) -> FleetSummary {
        let latencies = self.registration_latencies.lock().clone();
        FleetSummary {
            registered: self.registered.load(Ordering::Relaxed),
            acknowledged: self.epochs().filter(|epoch| *epoch > 0).count(),
            registrations_ok: latencies.len(),
            registrations_failed: read(&self.registrations_failed),
            registration_latency: LatencySummary::of(latencies),
            heartbeats_sent: read(&self.heartbeats_sent),
            heartbeats_ok: read(&self.heartbeats_ok),
            heartbeats_failed: read(&self.heartbeats_failed),
            unknown_agent: read(&self.unknown_agent),
            heartbeat_latency: self.heartbeat_latency.summary(),
            lag: self.lag.summary(),
            goodbyes_ok: read(&self.goodbyes_ok),
        }
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Durations in buckets whose width grows with the duration.
#[derive(Debug)]
pub(super) struct Histogram {
    buckets: Vec<AtomicU64>,
    max_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(super) fn record(&self, duration: Duration) {
        let us = micros(duration);
        count(&self.buckets[bucket_of(us)]);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    fn summary(&self) -> LatencySummary {
        let counts: Vec<u64> = self.buckets.iter().map(read).collect();
        let total: u64 = counts.iter().sum();
        let max_us = read(&self.max_us);
        let at = |per_cent: u64| {
            let rank = (total * per_cent).div_ceil(100);
            let mut below = 0;
            let bucket = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            bucket.map_or(max_us, |bucket| upper_bound(bucket).min(max_us))
        };
        LatencySummary {
            count: total,
            p50_us: at(50),
            p99_us: at(99),
            max_us,
        }
    }
}

fn bucket_of(us: u64) -> usize {
    let Some(octave) = us.max(1).ilog2().checked_sub(BUCKETS_PER_OCTAVE.ilog2()) else {
        return usize::try_from(us).expect("it is below 16");
    };
    let within = (us >> octave) % BUCKETS_PER_OCTAVE;
    let bucket = (u64::from(octave) + 1) * BUCKETS_PER_OCTAVE + within;
    usize::try_from(bucket).expect("there are 976 buckets")
}

fn upper_bound(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let Some(octave) = (bucket / BUCKETS_PER_OCTAVE).checked_sub(1) else {
        return bucket;
    };
    let next = BUCKETS_PER_OCTAVE + bucket % BUCKETS_PER_OCTAVE + 1;
    u64::try_from((u128::from(next) << octave) - 1).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_close_above_it() {
        for us in [
            0,
            1,
            15,
            16,
            17,
            31,
            32,
            1_000,
            123_456,
            u64::MAX / 3,
            u64::MAX,
        ] {
            let bound = upper_bound(bucket_of(us));

            assert!(
                bound >= us && bound - us <= us / 16,
                "{us} in a bucket up to {bound}"
            );
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_buckets_agree_with_exact_ones() {
        let histogram = Histogram::default();
        let latencies: Vec<_> = (1..=1_000).map(Duration::from_micros).collect();
        for latency in &latencies {
            histogram.record(*latency);
        }

        let (rough, exact) = (histogram.summary(), LatencySummary::of(latencies));

        assert_eq!(
            (exact.p50_us, exact.p99_us, exact.max_us),
            (500, 990, 1_000)
        );
        assert_eq!((rough.count, rough.max_us), (1_000, 1_000));
        assert!(rough.p50_us.abs_diff(500) <= 32, "{rough:?}");
        assert!(rough.p99_us.abs_diff(990) <= 62, "{rough:?}");
    }

    #[test]
    fn nothing_measured_is_all_zero() {
        assert_eq!(LatencySummary::of(Vec::new()), LatencySummary::default());
        assert_eq!(Histogram::default().summary(), LatencySummary::default());
    }
}
