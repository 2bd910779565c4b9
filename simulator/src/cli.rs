//! The `ollama-simulator` command: one scripted runtime, or a fleet that is measured for a while.

use std::io::Write as _;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use ollama_coordinator_common::duration;
use ollama_coordinator_common::protocol::runtime::Model;
use ollama_coordinator_common::shutdown::Shutdown;
use serde_json::json;
use tokio::time::sleep;

use crate::fleet::{Fleet, FleetOptions};
use crate::runtime::ScriptedRuntime;
use crate::runtime::script::{RuntimeScript, simulated_model, with_tag};

const GIB: u64 = 1 << 30;

/// Stand-ins for model runtimes and fleets of agents, on this machine only.
#[derive(Debug, Parser)]
#[command(name = "ollama-simulator", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a scripted runtime until it is stopped.
    Runtime(RuntimeArgs),
    /// Runs a fleet against a coordinator and prints what came of it as JSON.
    Fleet(FleetArgs),
}

#[derive(Debug, Args)]
struct RuntimeArgs {
    /// Port on 127.0.0.1; 0 lets the system choose.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Names of the models to serve, separated by commas; `NAME+vision+thinking` can do more.
    #[arg(long, value_delimiter = ',', default_value = "simulated-small:latest")]
    models: Vec<String>,
    /// Pace of an answer; as fast as it goes when left out.
    #[arg(long)]
    tokens_per_second: Option<NonZeroU32>,
    /// Length of every answer that the request does not limit.
    #[arg(long)]
    answer_tokens: Option<NonZeroU32>,
    /// Requests served at once.
    #[arg(long, default_value = "4")]
    slots: NonZeroU32,
    /// Requests that may wait for a slot.
    #[arg(long, default_value_t = 512)]
    max_queue: usize,
    /// Models held in memory at once.
    #[arg(long, default_value = "3")]
    max_loaded: NonZeroUsize,
    /// Time to the first token.
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    first_token_delay: Duration,
    /// Time to load a model that is not in memory.
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    cold_load: Duration,
    /// Makes the answers of this runtime its own.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How long it takes to pull or push a model.
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    transfer_time: Duration,
    /// Write the same times and durations into every answer.
    #[arg(long)]
    fixed_clock: bool,
}

#[derive(Debug, Args)]
struct FleetArgs {
    /// The coordinator's address; only a loopback address is accepted.
    #[arg(long, default_value = "127.0.0.1:11400")]
    coordinator: SocketAddr,
    /// The runtime that every agent claims to front; only a loopback address is accepted.
    #[arg(long, default_value = "127.0.0.1:11434")]
    runtime: SocketAddr,
    /// How many agents.
    #[arg(long, default_value_t = 1_000)]
    agents: usize,
    /// For how long, in seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many connections the agents share.
    #[arg(long, default_value = "64")]
    connections: NonZeroUsize,
    /// Over how long a time the first registrations are spread.
    #[arg(long, default_value = "1s", value_parser = duration::parse)]
    start_spread: Duration,
    /// The same seed is the same agents again.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Does what the command line asks for, until it is done or `shutdown` is triggered.
///
/// # Errors
/// The port cannot be opened, or an address is not a loopback address.
pub async fn run(cli: Cli, shutdown: Shutdown) -> anyhow::Result<()> {
    match cli.command {
        Command::Runtime(args) => serve_runtime(args, shutdown).await,
        Command::Fleet(args) => measure_fleet(args, shutdown).await,
    }
}

async fn serve_runtime(args: RuntimeArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    let port = args.port;
    let runtime = ScriptedRuntime::start_on(port, script(args))
        .await
        .with_context(|| format!("failed to open port {port}"))?;
    print(&json!({ "url": runtime.url() }))?;

    shutdown.stopping().await;
    runtime.stop().await;
    Ok(())
}

async fn measure_fleet(args: FleetArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    let seconds = args.seconds;
    let fleet = Fleet::start(FleetOptions {
        coordinator: args.coordinator,
        agents: args.agents,
        connections: args.connections,
        runtime: args.runtime,
        start_spread: args.start_spread,
        seed: args.seed,
    })
    .await?;

    tokio::select! {
        () = sleep(Duration::from_secs(seconds)) => {}
        () = shutdown.stopping() => {}
    }
    let registered_at_end = fleet.summary().registered;
    let mut summary = serde_json::to_value(fleet.stop().await)?;
    summary["registered"] = json!(registered_at_end);
    print(&summary)
}

fn script(args: RuntimeArgs) -> RuntimeScript {
    RuntimeScript {
        models: args.models.iter().map(|name| model(name)).collect(),
        tokens_per_second: args.tokens_per_second,
        answer_tokens: args.answer_tokens,
        slots: args.slots,
        max_queue: args.max_queue,
        max_loaded: args.max_loaded,
        first_token_delay: args.first_token_delay,
        cold_load: args.cold_load,
        seed: args.seed,
        transfer_time: args.transfer_time,
        fixed_clock: args.fixed_clock,
        ..RuntimeScript::default()
    }
}

/// Makes the model that `NAME+CAPABILITY+...` describes.
fn model(described: &str) -> Model {
    let mut words = described.split('+');
    let mut model = simulated_model(&with_tag(words.next().unwrap_or_default()), GIB);
    model.capabilities.extend(words.map(str::to_owned));
    model
}

fn print(value: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value:#}").context("failed to print")?;
    out.flush().context("failed to print")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[tokio::test]
    async fn coordinator_that_is_not_on_this_machine_is_refused() {
        let line = "ollama-simulator fleet --coordinator 192.0.2.1:11400";
        let cli = Cli::parse_from(line.split(' '));

        let refused = run(cli, Shutdown::default()).await.unwrap_err();

        assert!(
            refused.to_string().contains("not a loopback address"),
            "{refused}"
        );
    }
}
