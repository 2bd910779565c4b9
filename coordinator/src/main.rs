//! Entry point: parse, log, run, report.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use ollama_coordinator::commands::agents::{self, Outcome};
use ollama_coordinator::commands::ask::CommandError;
use ollama_coordinator::commands::doctor;
use ollama_coordinator::config::{Cli, Command};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::shutdown::Shutdown;

const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;
const DEGRADED: u8 = 5;

/// With glibc's allocator a heartbeat costs up to two thirds more once a large fleet has been
/// registered, because its free lists fragment. Elsewhere the system's allocator is used.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(UNEXPECTED, &error.into()),
    };
    let ended = runtime.block_on(run(cli));
    // A name lookup that hangs in the system must not hold up the exit.
    runtime.shutdown_background();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err((code, error)) => report(code, &error),
    }
}

/// Does what was asked for; returns the exit code, with the error when it failed.
async fn run(cli: Cli) -> Result<u8, (u8, anyhow::Error)> {
    let failed = |error: CommandError| (error.exit_code(), error.into());
    match cli.command {
        Some(Command::Agents(args)) => match agents::run(args).await.map_err(failed)? {
            Outcome::Fine => Ok(0),
            Outcome::Degraded => Ok(DEGRADED),
        },
        Some(Command::Doctor(args)) => doctor::run(args).await.map_err(failed),
        None => {
            logging::init(cli.config.log_format.into()).map_err(|error| (USAGE, error.into()))?;
            let ended = ollama_coordinator::run(cli.config, Shutdown::default()).await;
            ended.map_err(|error| (error.exit_code(), error.into()))?;
            Ok(0)
        }
    }
}

/// Says on standard error what went wrong, with its causes.
fn report(code: u8, error: &anyhow::Error) -> ExitCode {
    // Nobody can be told when standard error is closed.
    drop(writeln!(std::io::stderr(), "error: {error:#}"));
    ExitCode::from(code)
}
