//! What the process was asked to do: flags over environment over defaults, resolved once.
//!
//! Every value is checked here, by name and with its allowed range, and never read again later.

mod link;
mod machine_name;
mod runtime_url;
mod timing;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::duration;
use ollama_coordinator_common::logging::LogFormat;

pub use self::link::{Advertised, Link};
pub use self::timing::Timing;

/// The port on which a coordinator listens unless told otherwise.
pub const DEFAULT_COORDINATOR_PORT: u16 = 11400;

const SMALLEST_INTERVAL: Duration = Duration::from_millis(100);
const LARGEST_CAPACITY: u32 = 10_000;
const LARGEST_INTERVAL: Duration = Duration::from_hours(1);

const MISSING_COORDINATOR: &str = "\
no coordinator is given, so there is nobody to register with

  flag:         ollama-agent --coordinator http://192.168.1.10:11400
  environment:  OLLAMA_AGENT_COORDINATOR=http://192.168.1.10:11400

  The address is printed by `ollama-coordinator` when it starts.
";

const AFTER_HELP: &str = "\
Examples:
  ollama-agent --coordinator http://192.168.1.10:11400
  ollama-agent --coordinator gpu-hub --runtime 127.0.0.1:8080 --machine-name gpu-02

The agent's identity (an id and a secret) lives in agent.json in the state directory. Keep the
directory and the machine stays the same agent; remove it and the machine joins as a new one.
Never copy it to another machine.

The coordinator is reached through the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names, unless
NO_PROXY excepts it or it is on this machine or its network. The runtime is always reached directly.

OLLAMA_NUM_PARALLEL, when it is set as for Ollama, says how many requests Ollama serves at once.

Durations are written as 500ms, 5s, 2m or a number of seconds. Log levels are set by RUST_LOG.

Exit status: 0 stopped as asked, 1 unexpected failure, 2 unusable flag or setting,
3 no registration within --register-max-attempts, 6 another agent uses the state directory.
";

/// What the agent was asked to do. Also made directly by tests and simulations.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to register.
    pub coordinator: BaseUrl,
    /// The runtime that this agent fronts.
    pub runtime: BaseUrl,
    /// How many requests an Ollama serves at once, from its own `OLLAMA_NUM_PARALLEL`: it does not
    /// tell when asked.
    pub ollama_slots: Option<NonZeroU32>,
    /// How many requests the runtime is to be given at once, whatever it says itself.
    pub capacity: Option<NonZeroU32>,
    /// How the coordinator is to reach the runtime.
    pub link: Link,
    /// How the coordinator is dialled; the runtime is always dialled directly.
    pub dial: Dial,
    /// Where the identity is kept.
    pub state_dir: PathBuf,
    /// What to call this machine.
    pub machine_name: String,
    /// The longest delay between attempts to register.
    pub register_retry_interval: Duration,
    /// After how many failed attempts in a row to register the agent ends; 0: never.
    pub register_max_attempts: u32,
    /// The longest time between two heartbeats, when the coordinator's lease says longer.
    pub heartbeat_interval: Option<Duration>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The delays and limits that are not for the operator to set.
    pub timing: Timing,
}

impl Config {
    /// Resolves the process's own flags and environment.
    ///
    /// # Errors
    /// Help or version was asked for, or a value is unusable; print it and use its exit code.
    pub fn from_process() -> Result<Self, clap::Error> {
        Self::resolve(std::env::args_os())
    }

    /// Resolves the agent that a coordinator runs in its own process for its own machine. The same
    /// environment rules apply, except that the coordinator knows where it is and where to keep
    /// the agent's state, and reaches the runtime by itself.
    ///
    /// # Errors
    /// A value in the environment is unusable.
    pub fn for_local_coordinator(
        coordinator: BaseUrl,
        state_dir: PathBuf,
    ) -> Result<Self, clap::Error> {
        let config = Self::resolve([
            "ollama-agent".into(),
            "--coordinator".into(),
            coordinator.to_string().into(),
            "--state-dir".into(),
            state_dir.into_os_string(),
        ])?;
        let advertised = None;
        Ok(Self {
            link: Link::Direct { advertised },
            dial: Dial::default(),
            ..config
        })
    }

    /// Makes a configuration with the defaults of every optional setting, without looking at the
    /// environment.
    pub fn new(coordinator: BaseUrl, runtime: BaseUrl, state_dir: PathBuf) -> Self {
        Self {
            coordinator,
            runtime,
            ollama_slots: None,
            capacity: None,
            link: Link::Tunnel,
            dial: Dial::default(),
            state_dir,
            machine_name: "unnamed".to_owned(),
            register_retry_interval: Duration::from_secs(30),
            register_max_attempts: 0,
            heartbeat_interval: None,
            log_format: LogFormat::Human,
            timing: Timing::default(),
        }
    }

    fn resolve(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args = Args::try_parse_from(args)?;
        let unusable = |message: String| Args::command().error(ErrorKind::ValueValidation, message);
        let coordinator = args.coordinator.ok_or_else(|| {
            Args::command().error(ErrorKind::MissingRequiredArgument, MISSING_COORDINATOR)
        })?;
        let runtime = match args.runtime {
            Some(runtime) => runtime,
            None => runtime_url::from_ollama_host(environment("OLLAMA_HOST").as_deref())
                .map_err(|error| unusable(error.to_string()))?,
        };
        let state_dir = args
            .state_dir
            .or_else(default_state_dir)
            .ok_or_else(|| unusable("the home directory is unknown; set --state-dir".to_owned()))?;
        let machine_name = machine_name::choose([
            args.machine_name,
            environment("OLLAMA_MACHINE_NAME"),
            environment("HOSTNAME"),
            sysinfo::System::host_name().ok(),
        ]);
        Ok(Self {
            ollama_slots: environment("OLLAMA_NUM_PARALLEL").and_then(|slots| slots.parse().ok()),
            capacity: args.capacity,
            link: match args.advertise {
                Some(_) => Link::Direct {
                    advertised: args.advertise,
                },
                None => Link::Tunnel,
            },
            dial: Dial::from_environment(),
            machine_name,
            register_retry_interval: args.register_retry_interval,
            register_max_attempts: args.register_max_attempts,
            heartbeat_interval: args.heartbeat_interval,
            log_format: args.log_format,
            ..Self::new(coordinator, runtime, state_dir)
        })
    }
}

/// Registers this machine's model runtime (Ollama, or any server with the OpenAI API) with an
/// Ollama Coordinator and keeps it registered.
///
/// The agent looks at the runtime and says how it is; it never changes the runtime's models or
/// settings. It waits for a coordinator or runtime that is not there yet, and comes back by itself
/// when either was away. The coordinator's requests come over a connection that the agent opens, so
/// no port has to be opened here.
#[derive(Debug, Parser)]
#[command(name = "ollama-agent", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Args {
    /// The coordinator, such as `http://192.168.1.10:11400`; the port may be left out
    #[arg(long, env = "OLLAMA_AGENT_COORDINATOR", value_name = "URL", value_parser = coordinator)]
    coordinator: Option<BaseUrl>,

    /// The runtime to register [default: Ollama's own `OLLAMA_HOST`, else `127.0.0.1:11434`]
    #[arg(long, env = "OLLAMA_AGENT_RUNTIME", value_name = "URL", value_parser = runtime_url::parse)]
    runtime: Option<BaseUrl>,

    /// Have the coordinator dial the runtime itself, at this IP address, with or without a port
    /// [default: the agent carries the requests]
    #[arg(long, env = "OLLAMA_AGENT_ADVERTISE", value_name = "ADDRESS", value_parser = link::parse)]
    advertise: Option<Advertised>,

    /// Where the identity is kept [default: `~/.ollama-coordinator/agent`]
    #[arg(long, env = "OLLAMA_AGENT_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// What to call this machine [default: `OLLAMA_MACHINE_NAME`, `HOSTNAME`, else the system's
    /// name]
    #[arg(long, env = "OLLAMA_AGENT_MACHINE_NAME", value_name = "NAME")]
    machine_name: Option<String>,

    /// How many requests the runtime is given at once, 1 to 10000 [default: what it says]
    #[arg(long, env = "OLLAMA_AGENT_CAPACITY", value_name = "COUNT", value_parser = capacity)]
    capacity: Option<NonZeroU32>,

    /// The longest delay between attempts to register; delays are random and grow from 0.5 s up
    /// to this
    #[arg(
        long,
        env = "OLLAMA_AGENT_REGISTER_RETRY_INTERVAL",
        value_name = "DURATION",
        default_value = "30s",
        value_parser = interval
    )]
    register_retry_interval: Duration,

    /// End after this many failed attempts in a row to register; 0: never
    #[arg(
        long,
        env = "OLLAMA_AGENT_REGISTER_MAX_ATTEMPTS",
        value_name = "COUNT",
        default_value_t = 0
    )]
    register_max_attempts: u32,

    /// The longest time between two heartbeats; the coordinator may ask for a shorter one
    /// [default: what the coordinator asks for]
    #[arg(
        long,
        env = "OLLAMA_AGENT_HEARTBEAT_INTERVAL",
        value_name = "DURATION",
        value_parser = interval
    )]
    heartbeat_interval: Option<Duration>,

    /// How log lines look: `human` or `json`
    #[arg(
        long,
        env = "OLLAMA_AGENT_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "human",
        value_parser = log_format
    )]
    log_format: LogFormat,
}

fn coordinator(text: &str) -> Result<BaseUrl, ollama_coordinator_common::base_url::InvalidBaseUrl> {
    BaseUrl::parse(text.trim(), DEFAULT_COORDINATOR_PORT)
}

fn capacity(text: &str) -> Result<NonZeroU32, InvalidCapacity> {
    let capacity: NonZeroU32 = text.parse().map_err(|_not_a_count| InvalidCapacity)?;
    if capacity.get() <= LARGEST_CAPACITY {
        Ok(capacity)
    } else {
        Err(InvalidCapacity)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the allowed range is 1 to 10000")]
struct InvalidCapacity;

fn interval(text: &str) -> Result<Duration, InvalidInterval> {
    let interval = duration::parse(text)?;
    if (SMALLEST_INTERVAL..=LARGEST_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        Err(InvalidInterval::OutOfRange)
    }
}

#[derive(Debug, thiserror::Error)]
enum InvalidInterval {
    #[error("the allowed range is 100ms to 1h")]
    OutOfRange,
    #[error("{0} (from 100ms to 1h)")]
    NotADuration(#[from] duration::InvalidDuration),
}

fn log_format(text: &str) -> Result<LogFormat, InvalidLogFormat> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(InvalidLogFormat),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("allowed are `human` and `json`")]
struct InvalidLogFormat;

fn environment(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .filter(|value| !value.trim().is_empty())
}

fn default_state_dir() -> Option<PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty())?;
    Some(home.join(".ollama-coordinator").join("agent"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("0")]
    #[case("-1")]
    #[case("-5s")]
    #[case("NaN")]
    #[case("inf")]
    #[case("99ms")]
    #[case("61m")]
    #[case("1e300")]
    #[case("soon")]
    #[case("")]
    fn unusable_intervals_are_refused_with_the_allowed_range(#[case] text: &str) {
        let error = interval(text).unwrap_err().to_string();

        assert!(error.contains("100ms to 1h"), "{error}");
    }

    proptest! {
        #[test]
        fn accepted_intervals_are_in_range(text in "-?[0-9]{1,12}(\\.[0-9]{1,3})?(ms|s|m|h|)") {
            if let Ok(interval) = interval(&text) {
                prop_assert!((SMALLEST_INTERVAL..=LARGEST_INTERVAL).contains(&interval));
            }
        }
    }

    #[test]
    fn help_is_worth_reading() {
        let help = Args::command()
            .term_width(100)
            .render_long_help()
            .to_string();

        insta::assert_snapshot!(without_environment(&help));
    }

    #[test]
    fn agent_of_a_coordinator_knows_where_it_is_and_keeps_its_state() {
        let coordinator = BaseUrl::parse("127.0.0.1:4000", 1).unwrap();

        let config = Config::for_local_coordinator(coordinator.clone(), "/data/agent".into());

        let config = config.unwrap();
        assert_eq!(config.coordinator, coordinator);
        assert_eq!(config.state_dir, PathBuf::from("/data/agent"));
        assert_eq!(config.link, Link::Direct { advertised: None });
    }

    /// Help shows the values of variables that happen to be set: `[env: NAME=value]`.
    fn without_environment(help: &str) -> String {
        let lines = help.lines().map(|line| match line.split_once("[env: ") {
            Some((before, rest)) => {
                let name = rest.split(['=', ']']).next().unwrap_or_default();
                format!("{before}[env: {name}]")
            }
            None => line.trim_end().to_owned(),
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
