//! How requests are spread over the agents, and how long they may wait for one.

use std::time::Duration;

use clap::{Args, ValueEnum};
use ollama_coordinator_common::duration;

use crate::balancer::policy;
use crate::balancer::state::Settings;

const SHORTEST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// How requests are spread.
#[derive(Debug, Clone, Args)]
pub struct BalancingArgs {
    /// How to choose among the agents that can take a request
    #[arg(long, env = "OLLAMA_COORDINATOR_POLICY", value_enum, default_value_t)]
    pub policy: Policy,
    /// How many requests may wait for one model while every agent that has it is busy, 0 to 100000
    #[arg(
        long,
        env = "OLLAMA_COORDINATOR_QUEUE_LENGTH",
        value_name = "COUNT",
        default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(..=100_000)
    )]
    pub queue_length: u32,
    /// How long a request may wait, 1s to 1h
    #[arg(
        long,
        env = "OLLAMA_COORDINATOR_QUEUE_TIMEOUT",
        value_name = "DURATION",
        default_value = "60s",
        value_parser = wait
    )]
    pub queue_timeout: Duration,
}

/// How to choose among the agents that can take a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The model in memory, then enough free memory, then the least to do for capacity and speed
    #[default]
    LeastLoaded,
    /// In turn, loaded model or not
    RoundRobin,
    /// By chance, in proportion to capacity
    Weighted,
    /// As least-loaded, but a conversation goes where it was before unless that agent has too
    /// much to do
    PrefixAffinity,
}

impl From<Policy> for policy::Policy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::LeastLoaded => Self::LeastLoaded,
            Policy::RoundRobin => Self::RoundRobin,
            Policy::Weighted => Self::Weighted,
            Policy::PrefixAffinity => Self::PrefixAffinity,
        }
    }
}

impl BalancingArgs {
    /// Returns what these settings ask for.
    pub fn settings(&self) -> Settings {
        Settings {
            policy: self.policy.into(),
            queue_length: usize::try_from(self.queue_length).unwrap_or(usize::MAX),
            queue_timeout: self.queue_timeout,
        }
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = duration::parse(text).map_err(|error| format!("{error} (from 1s to 1h)"))?;
    if (SHORTEST_WAIT..=LONGEST_WAIT).contains(&wait) {
        Ok(wait)
    } else {
        Err("allowed are 1s to 1h".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use rstest::rstest;

    use super::*;
    use crate::config::Cli;

    fn parse(args: &[&str]) -> Result<Settings, String> {
        let args = ["ollama-coordinator"].iter().chain(args);
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        Ok(cli.config.balancing.settings())
    }

    #[test]
    fn defaults_are_those_of_the_balancer() {
        assert_eq!(parse(&[]), Ok(Settings::default()));
    }

    #[rstest]
    #[case("--policy=least_loaded", "prefix-affinity")]
    #[case("--queue-length=100001", "0..=100000")]
    #[case("--queue-timeout=999ms", "1s to 1h")]
    #[case("--queue-timeout=0", "1s to 1h")]
    #[case("--queue-timeout=61m", "1s to 1h")]
    fn unusable_values_are_refused_with_what_is_allowed(#[case] arg: &str, #[case] allowed: &str) {
        let error = parse(&[arg]).unwrap_err();

        assert!(error.contains(allowed), "{error}");
    }
}
