//! Entry point: parse, log, serve or do what else was asked for, report.

use std::ffi::OsString;
use std::process::ExitCode;

use ollama_agent::commands::Failure;
use ollama_agent::config::{Cli, Given, MISSING_COORDINATOR};
use ollama_agent::{Agent, AgentError, error_chain, service};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::shutdown::Shutdown;

const SUCCESS: u8 = 0;
const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    ExitCode::from(execute(std::env::args_os(), Shutdown::default()))
}

/// Serves with these flags until `shutdown`, and returns the exit code.
fn serve_as_service(flags: Vec<String>, shutdown: Shutdown) -> u8 {
    let name = std::iter::once("ollama-agent".to_owned());
    execute(name.chain(flags).map(OsString::from), shutdown)
}

/// Does what the words ask for, and returns the exit code.
fn execute(words: impl IntoIterator<Item = OsString>, shutdown: Shutdown) -> u8 {
    let invocation = match Cli::read(words) {
        Ok(invocation) => invocation,
        Err(error) => {
            let code = if error.print().is_ok() {
                error.exit_code()
            } else {
                1
            };
            return u8::try_from(code).unwrap_or(USAGE);
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
            Some(command) => command.run(&given, serve_as_service).await,
            None => serve(given, shutdown).await.map(|()| SUCCESS),
        }
    });
    // A name lookup that hangs in the system must not hold up the exit.
    runtime.shutdown_background();
    ended.unwrap_or_else(|failure| report(&failure))
}

async fn serve(given: Given, shutdown: Shutdown) -> Result<(), Failure> {
    let resolved = given.resolve().map_err(|error| Failure::usage(&error))?;
    if resolved.config.coordinator.is_none() && !resolved.panel_is_asked_for() {
        return Err(Failure {
            code: USAGE,
            message: MISSING_COORDINATOR.to_owned(),
        });
    }
    logging::init(resolved.config.log_format).map_err(|error| Failure::usage(&error))?;
    let failed = |error: AgentError| Failure {
        code: error.exit_code(),
        message: error_chain(&error),
    };
    let agent = Agent::open(resolved.config, shutdown.clone()).map_err(failed)?;
    // In this order: signals are listened for before anybody hears that the agent is up, and its stop
    // is told before it has stopped.
    tokio::select! {
        biased;
        () = shutdown.clone().watch_signals() => Ok(()),
        () = service::announce(shutdown) => Ok(()),
        ended = agent.with_panel(given).run() => ended.map_err(failed),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of the process, also without a log"
)]
fn report(failure: &Failure) -> u8 {
    eprintln!("error: {failure}");
    failure.code
}
