//! What a scripted runtime says of time: the true one, or always the same where the script wants
//! answers that are equal byte for byte.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio::time::Instant;

use super::script::RuntimeScript;

/// What every answer says when the clock stands still.
const FIXED_TIME: &str = "2026-01-01T00:00:00.000000001Z";
const FIXED_UNIX_TIME: i64 = 1_767_225_600;
const FIXED_DURATION: Duration = Duration::from_millis(1);
const FAR_FUTURE: &str = "2318-01-01T00:00:00Z";

impl RuntimeScript {
    /// Returns the time as Ollama writes it: RFC 3339 with nanoseconds.
    pub(super) fn timestamp(&self) -> String {
        if self.fixed_clock {
            FIXED_TIME.to_owned()
        } else {
            written(Utc::now())
        }
    }

    /// Returns the time as OpenAI writes it: seconds.
    pub(super) fn unix_time(&self) -> i64 {
        if self.fixed_clock {
            FIXED_UNIX_TIME
        } else {
            Utc::now().timestamp()
        }
    }

    /// Returns when it will be `at`; never is far away.
    pub(super) fn wall_clock(&self, at: Option<Instant>) -> String {
        if self.fixed_clock {
            return FAR_FUTURE.to_owned();
        }
        let left = at.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| chrono::TimeDelta::from_std(left).ok());
        let at = left.and_then(|left| Utc::now().checked_add_signed(left));
        at.map_or_else(|| FAR_FUTURE.to_owned(), written)
    }

    /// Returns a duration in nanoseconds, as Ollama writes it.
    pub(super) fn nanos(&self, duration: Duration) -> u64 {
        let told = if self.fixed_clock {
            FIXED_DURATION
        } else {
            duration
        };
        u64::try_from(told.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn written(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Nanos, true)
}
