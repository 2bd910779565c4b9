//! Entry point: parse, log, run, report.

use std::convert::Infallible;
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use ollama_coordinator_common::logging::{self, LogFormat};
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use ollama_simulator::cli::{self, Cli};

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run(Cli::parse()).await else {
        return ExitCode::SUCCESS;
    };
    drop(writeln!(std::io::stderr(), "error: {error:#}"));
    ExitCode::FAILURE
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    logging::init(LogFormat::Human)?;

    let shutdown = Shutdown::default();
    let signals = shutdown.clone().watch_signals();
    Tasks::default().spawn("signals", OnExit::Log, async {
        signals.await;
        Ok::<_, Infallible>(())
    });
    cli::run(cli, shutdown).await
}
