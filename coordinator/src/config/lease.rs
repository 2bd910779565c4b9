//! When an agent counts as dead.

use std::time::Duration;

use clap::Args;

use super::{InvalidConfig, between};
use crate::registry::lease::LeasePolicy;

const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_mins(10);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(300);
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

/// When an agent counts as dead.
#[derive(Debug, Clone, Args)]
pub struct LeaseArgs {
    /// Time between an agent's heartbeats while the fleet is small, 100ms to 10m; grows with the
    /// fleet [default: 1s]
    #[arg(long, env = "OLLAMA_COORDINATOR_HEARTBEAT_INTERVAL", value_name = "DURATION", value_parser = interval)]
    pub heartbeat_interval: Option<Duration>,
    /// Silence after which an agent is offline, 300ms to 24h, at least three heartbeat intervals
    /// [default: follows from the interval: 4s for 1s]
    #[arg(long, env = "OLLAMA_COORDINATOR_AGENT_TIMEOUT", value_name = "DURATION", value_parser = timeout)]
    pub agent_timeout: Option<Duration>,
}

impl LeaseArgs {
    /// Returns the cadence these settings ask for.
    pub fn policy(&self) -> Result<LeasePolicy, InvalidConfig> {
        let default_interval = Duration::from_secs(1);
        let interval = match (self.heartbeat_interval, self.agent_timeout) {
            (Some(interval), Some(timeout)) if timeout < interval * 3 => {
                return Err(InvalidConfig(format!(
                    "--agent-timeout {} is too short for --heartbeat-interval {}: three \
                     heartbeats must fit, so say at least --agent-timeout {}",
                    humantime::format_duration(timeout),
                    humantime::format_duration(interval),
                    humantime::format_duration(interval * 3),
                )));
            }
            (Some(interval), _) => interval,
            (None, Some(timeout)) => default_interval.min(timeout / 3),
            (None, None) => default_interval,
        };
        Ok(LeasePolicy {
            interval,
            fixed_ttl: self.agent_timeout,
        })
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    between(text, SHORTEST_INTERVAL, LONGEST_INTERVAL)
}

fn timeout(text: &str) -> Result<Duration, String> {
    between(text, SHORTEST_TIMEOUT, LONGEST_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn args(interval: Option<u64>, timeout: Option<u64>) -> LeaseArgs {
        LeaseArgs {
            heartbeat_interval: interval.map(Duration::from_secs),
            agent_timeout: timeout.map(Duration::from_secs),
        }
    }

    #[rstest]
    #[case(None, None, 1_000, None)]
    #[case(Some(5), None, 5_000, None)]
    #[case(Some(10), Some(60), 10_000, Some(60))]
    #[case(None, Some(60), 1_000, Some(60))]
    fn settings_lead_to_a_cadence(
        #[case] interval: Option<u64>,
        #[case] timeout: Option<u64>,
        #[case] interval_ms: u64,
        #[case] fixed_ttl: Option<u64>,
    ) {
        let policy = args(interval, timeout).policy().unwrap();

        assert_eq!(policy.interval, Duration::from_millis(interval_ms));
        assert_eq!(policy.fixed_ttl, fixed_ttl.map(Duration::from_secs));
    }

    #[test]
    fn timeout_that_leaves_no_room_for_three_heartbeats_is_refused_by_name() {
        let error = args(Some(30), Some(60)).policy().unwrap_err().to_string();

        assert!(
            error.contains("--agent-timeout") && error.contains("1m 30s"),
            "{error}"
        );
    }

    #[rstest]
    #[case("0")]
    #[case("-5s")]
    #[case("NaN")]
    #[case("1e300")]
    #[case("99ms")]
    #[case("11m")]
    fn unusable_intervals_are_refused(#[case] text: &str) {
        assert!(interval(text).is_err(), "{text}");
    }
}
