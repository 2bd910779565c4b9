//! Entry point: parse, log, run, report.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use ollama_coordinator::commands::agents::{self, Outcome};
use ollama_coordinator::commands::ask::{CommandError, NAME};
use ollama_coordinator::commands::doctor;
use ollama_coordinator::config::{Cli, Command};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::service::Product;
use ollama_coordinator_common::shutdown::Shutdown;

const SUCCESS: u8 = 0;
const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;
const DEGRADED: u8 = 5;

const PRODUCT: Product = Product {
    name: NAME,
    description: "Ollama Coordinator",
    paths: &[("data-dir", "")],
    stops_within: ollama_coordinator::STOPS_WITHIN,
    lacks: |_told| None,
    serve: serve_as_service,
};

/// With glibc's allocator a heartbeat costs up to two thirds more once a large fleet has been
/// registered, because its free lists fragment. Elsewhere the system's allocator is used.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    ExitCode::from(execute(Cli::parse(), Shutdown::default()))
}

/// Serves with these flags until `shutdown`, and returns the exit code.
fn serve_as_service(flags: Vec<String>, shutdown: Shutdown) -> u8 {
    let words = std::iter::once(PRODUCT.name.to_owned()).chain(flags);
    match Cli::try_parse_from(words) {
        Ok(cli) => execute(cli, shutdown),
        Err(error) => report(USAGE, &error.into()),
    }
}

/// Does what was asked for, and returns the exit code.
fn execute(cli: Cli, shutdown: Shutdown) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(UNEXPECTED, &error.into()),
    };
    let ended = runtime.block_on(run(cli, shutdown));
    // A name lookup that hangs in the system must not hold up the exit.
    runtime.shutdown_background();
    ended.unwrap_or_else(|(code, error)| report(code, &error))
}

/// Does what was asked for; returns the exit code, with the error when it failed.
async fn run(cli: Cli, shutdown: Shutdown) -> Result<u8, (u8, anyhow::Error)> {
    let failed = |error: CommandError| (error.exit_code(), error.into());
    match cli.command {
        Some(Command::Agents(args)) => match agents::run(args).await.map_err(failed)? {
            Outcome::Fine => Ok(SUCCESS),
            Outcome::Degraded => Ok(DEGRADED),
        },
        Some(Command::Doctor(args)) => doctor::run(args).await.map_err(failed),
        Some(Command::Common(command)) => {
            let ended = command.run(Cli::command(), &PRODUCT);
            ended.map_err(|error| (error.exit_code(), error.into()))?;
            Ok(SUCCESS)
        }
        None => {
            logging::init(cli.config.log_format.into()).map_err(|error| (USAGE, error.into()))?;
            let ended = ollama_coordinator::run(cli.config, shutdown).await;
            ended.map_err(|error| (error.exit_code(), error.into()))?;
            Ok(SUCCESS)
        }
    }
}

/// Says on standard error what went wrong, with its causes, and returns the exit code.
fn report(code: u8, error: &anyhow::Error) -> u8 {
    // Nobody can be told when standard error is closed.
    drop(writeln!(std::io::stderr(), "error: {error:#}"));
    code
}
