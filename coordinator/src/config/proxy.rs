//! How long the proxy waits for machines, and when it tells a waiting client so.

use std::time::Duration;

use clap::Args;

use super::between;

/// Loading a large model from a slow disk takes minutes.
const FIRST_BYTE_TIMEOUT: &str = "10m";
const IDLE_TIMEOUT: &str = "2m";
const CONNECT_TIMEOUT: &str = "3s";
/// Half of what proxies between the client and the coordinator usually grant.
const KEEP_ALIVE: &str = "30s";

/// How requests are passed on.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// How long connecting to a machine may take, 100ms to 1m
    #[arg(long, env = "OLLAMA_COORDINATOR_CONNECT_TIMEOUT", value_name = "DURATION",
          default_value = CONNECT_TIMEOUT, value_parser = connect)]
    pub connect_timeout: Duration,
    /// How long a machine may take to begin an answer, loading the model included, 100ms to 24h
    #[arg(long, env = "OLLAMA_COORDINATOR_FIRST_BYTE_TIMEOUT", value_name = "DURATION",
          default_value = FIRST_BYTE_TIMEOUT, value_parser = answer)]
    pub first_byte_timeout: Duration,
    /// How long an answer may pause, 100ms to 24h
    #[arg(long, env = "OLLAMA_COORDINATOR_IDLE_TIMEOUT", value_name = "DURATION",
          default_value = IDLE_TIMEOUT, value_parser = answer)]
    pub idle_timeout: Duration,
    /// How long a client that wants a stream waits before it gets signs of life, and then the time
    /// between them, 100ms to 24h; 0: it gets none
    #[arg(long, env = "OLLAMA_COORDINATOR_KEEP_ALIVE", value_name = "DURATION",
          default_value = KEEP_ALIVE, value_parser = keep_alive)]
    pub keep_alive: Duration,
}

/// How requests are passed on, checked.
#[derive(Debug, Clone, Copy)]
pub struct ProxySettings {
    /// How long connecting to a machine may take.
    pub connect_timeout: Duration,
    /// How long a machine may take to begin an answer.
    pub first_byte_timeout: Duration,
    /// How long an answer may pause.
    pub idle_timeout: Duration,
    /// When and how often a waiting client gets a sign of life.
    pub keep_alive: Option<Duration>,
}

impl From<&ProxyArgs> for ProxySettings {
    fn from(args: &ProxyArgs) -> Self {
        Self {
            connect_timeout: args.connect_timeout,
            first_byte_timeout: args.first_byte_timeout,
            idle_timeout: args.idle_timeout,
            keep_alive: (!args.keep_alive.is_zero()).then_some(args.keep_alive),
        }
    }
}

fn connect(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(100), Duration::from_mins(1))
}

fn answer(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(100), Duration::from_hours(24))
}

fn keep_alive(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    answer(text).map_err(|allowed| format!("{allowed}, or 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(keep_alive, "0", true)]
    #[case(keep_alive, "15s", true)]
    #[case(keep_alive, "1ms", false)]
    #[case(connect, "0", false)]
    #[case(connect, "2m", false)]
    #[case(answer, "10m", true)]
    #[case(answer, "25h", false)]
    fn unusable_times_are_refused(
        #[case] parse: fn(&str) -> Result<Duration, String>,
        #[case] text: &str,
        #[case] is_usable: bool,
    ) {
        assert_eq!(parse(text).is_ok(), is_usable);
    }
}
