//! Entry point: parse, log, run, report.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use ollama_coordinator::commands::agents;
use ollama_coordinator::config::{Cli, Command};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::shutdown::Shutdown;

/// With glibc's allocator a heartbeat costs up to two thirds more once a large fleet has been
/// registered, because its free lists fragment. Elsewhere the system's allocator is used.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let shutdown = Shutdown::default();
    let failure = match cli.command {
        Some(Command::Agents(args)) => agents::run(args)
            .await
            .err()
            .map(|e| (e.exit_code(), e.into())),
        None => {
            if let Err(error) = logging::init(cli.config.log_format.into()) {
                return report(2, &error.into());
            }
            let served = ollama_coordinator::run(cli.config, shutdown).await;
            served
                .err()
                .map(|error| (error.exit_code(), anyhow::Error::from(error)))
        }
    };
    failure.map_or(ExitCode::SUCCESS, |(code, error)| report(code, &error))
}

/// Says on standard error what went wrong, with its causes.
fn report(code: u8, error: &anyhow::Error) -> ExitCode {
    // Nobody can be told when standard error is closed.
    drop(writeln!(std::io::stderr(), "error: {error:#}"));
    ExitCode::from(code)
}
