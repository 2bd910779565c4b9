//! The coordinator's command line and environment, resolved once at the start.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ollama_coordinator_common::commands::CommonCommand;
use ollama_coordinator_common::{duration, logging};

pub mod balancing;
pub mod lease;
pub mod listen;
pub mod proxy;
pub mod storage;
pub mod telemetry;

use crate::commands::agents::AgentsArgs;
use crate::commands::doctor::DoctorArgs;
use crate::server::ServerLimits;
use balancing::BalancingArgs;
use lease::LeaseArgs;
use listen::ListenArgs;
use proxy::ProxyArgs;
use storage::StorageArgs;
use telemetry::TelemetryArgs;

const LONG_ABOUT: &str = "\
One URL for every machine that runs a language model.

Starts the coordinator: agents on your machines register themselves with it, and it answers \
Ollama, OpenAI and Anthropic clients on one port from the machine that will answer best. This \
machine's own runtime takes part from the start.";

const AFTER_HELP: &str = "\
Examples:
  ollama-coordinator                       serve on port 11400, on every interface
  ollama-coordinator --dev                 try it: loopback only, nothing kept, simulated
                                           runtimes where no real one answers
  ollama-coordinator agents                list the machines
  ollama-coordinator doctor                find out what is wrong
  ollama-coordinator service install       have it started with this machine

On another machine:
  ollama-agent --coordinator http://ADDRESS-OF-THIS-MACHINE:11400

Exit codes: 0 stopped as asked, 1 unexpected failure, 2 unusable setting, 3 no coordinator
answers, 4 doctor found an error or there is no such agent, 5 agents --check found one that gets no
requests, 6 another coordinator holds the data directory or the port, 78 the data directory was
written by a newer version. Log levels: RUST_LOG, such as RUST_LOG=debug.";

/// One URL for every machine that runs a language model.
#[derive(Debug, Parser)]
#[command(name = "ollama-coordinator", version, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub config: Config,
}

/// What the binary can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the agents of a running coordinator
    Agents(AgentsArgs),
    /// Find out what is wrong, here or with one agent; changes nothing
    Doctor(DoctorArgs),
    /// What the agent's command line has too.
    #[command(flatten)]
    Common(CommonCommand),
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Try it out: loopback only, a data directory that is thrown away, and simulated runtimes
    /// where no real one answers
    #[arg(long)]
    pub dev: bool,
    /// Where to listen.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// Where to remember.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// When an agent counts as dead.
    #[command(flatten)]
    pub lease: LeaseArgs,
    /// How to pass requests on.
    #[command(flatten)]
    pub proxy: ProxyArgs,
    /// What is remembered and told of requests.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
    /// How requests are spread.
    #[command(flatten)]
    pub balancing: BalancingArgs,
    /// Do not register this machine's own runtime
    #[arg(long, env = "OLLAMA_COORDINATOR_NO_LOCAL_AGENT", value_parser = clap::builder::FalseyValueParser::new())]
    pub no_local_agent: bool,
    /// How log lines look
    #[arg(
        long,
        env = "OLLAMA_COORDINATOR_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    pub log_format: LogFormat,
    /// Limits of the server; not a setting.
    #[arg(skip)]
    pub limits: ServerLimits,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

impl From<LogFormat> for logging::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Human => Self::Human,
            LogFormat::Json => Self::Json,
        }
    }
}

/// Reads a duration within a range.
fn between(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = duration::parse(text).map_err(|error| error.to_string())?;
    if (min..=max).contains(&duration) {
        return Ok(duration);
    }
    Err(format!(
        "allowed are {} to {}",
        humantime::format_duration(min),
        humantime::format_duration(max)
    ))
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(pub(crate) String);

impl Config {
    /// Checks what no single setting can tell.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.lease.policy()?;
        self.telemetry.settings()?;
        Ok(())
    }

    /// Returns where the registry is kept; `None` under `--dev` without `--data-dir`.
    pub fn data_dir(&self) -> Result<Option<PathBuf>, InvalidConfig> {
        match (&self.storage.data_dir, self.dev) {
            (Some(dir), _) => Ok(Some(dir.clone())),
            (None, true) => Ok(None),
            (None, false) => storage::default_data_dir().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_value_of_a_setting_makes_it_panic(
            flag in any::<prop::sample::Index>(),
            value in prop_oneof!["-?[0-9.]{0,8}(ms|s|m|h|)", "[a-z0-9.:/=,]{0,20}", any::<String>()],
        ) {
            let command = Cli::command();
            let flags: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
            let flag = flag.get(&flags);

            let parsed = Cli::try_parse_from(["ollama-coordinator", &format!("--{flag}={value}")]);

            if let Ok(cli) = parsed {
                drop(cli.config.validate());
            }
        }
    }
}
