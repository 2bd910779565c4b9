//! Entry point: parse, log, serve or do what else was asked for, report.

use std::process::ExitCode;

use ollama_agent::commands::Failure;
use ollama_agent::config::{Cli, Given, MISSING_COORDINATOR};
use ollama_agent::{Agent, AgentError, error_chain};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::shutdown::Shutdown;

const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let invocation = match Cli::from_process() {
        Ok(invocation) => invocation,
        Err(error) => {
            let code = if error.print().is_ok() {
                error.exit_code()
            } else {
                1
            };
            return ExitCode::from(u8::try_from(code).unwrap_or(USAGE));
        }
    };
    // One thread is plenty for a few small messages per second, and keeps the agent small.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::new(UNEXPECTED, &error)),
    };
    let given = invocation.given;
    let ended = runtime.block_on(async {
        match invocation.command {
            Some(command) => command.run(&given).await,
            None => serve(given).await.map(|()| 0),
        }
    });
    // A name lookup that hangs in the system must not hold up the exit.
    runtime.shutdown_background();
    ended.map_or_else(|failure| report(&failure), ExitCode::from)
}

async fn serve(given: Given) -> Result<(), Failure> {
    let resolved = given.resolve().map_err(|error| Failure::usage(&error))?;
    if resolved.config.coordinator.is_none() && !resolved.panel_is_asked_for() {
        return Err(Failure {
            code: USAGE,
            message: MISSING_COORDINATOR.to_owned(),
        });
    }
    logging::init(resolved.config.log_format).map_err(|error| Failure::usage(&error))?;
    let shutdown = Shutdown::default();
    let failed = |error: AgentError| Failure {
        code: error.exit_code(),
        message: error_chain(&error),
    };
    let agent = Agent::open(resolved.config, shutdown.clone()).map_err(failed)?;
    tokio::select! {
        ended = agent.with_panel(given).run() => ended.map_err(failed),
        () = shutdown.watch_signals() => Ok(()),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of the process, also without a log"
)]
fn report(failure: &Failure) -> ExitCode {
    eprintln!("error: {failure}");
    ExitCode::from(failure.code)
}
