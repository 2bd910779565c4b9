//! Entry point: parse, log, serve or do what else was asked for, report.

use std::ffi::OsString;
use std::process::ExitCode;

use ollama_agent::commands::Failure;
use ollama_agent::config::{Cli, Given, MISSING_COORDINATOR, StartedBy};
use ollama_agent::face::Face;
use ollama_agent::local::Meant;
use ollama_agent::{Agent, AgentError, error_chain, finish, service, tray};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::shutdown::Shutdown;
use tokio::runtime::Runtime;

const SUCCESS: u8 = 0;
const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    ExitCode::from(execute(std::env::args_os(), Shutdown::default()))
}

/// Serves with these flags until `shutdown`, and returns the exit code.
fn serve_as_service(flags: Vec<String>, shutdown: Shutdown) -> u8 {
    let words = ["ollama-agent", "--no-tray"].map(str::to_owned);
    let words = words.into_iter().chain(flags);
    execute(words.map(OsString::from), shutdown)
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
    let (given, started_by) = (invocation.given, invocation.started_by);
    let ended = match (invocation.command, invocation.face) {
        (Some(command), _) => finish(runtime, command.run(&given, serve_as_service)),
        (None, face) => serve(runtime, given, (face, started_by), shutdown).map(|()| SUCCESS),
    };
    ended.unwrap_or_else(|failure| report(&failure))
}

fn serve(
    runtime: Runtime,
    given: Given,
    (face, started_by): (Face, StartedBy),
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let resolved = given.resolve().map_err(|error| Failure::usage(&error))?;
    // A desktop's start beside the machine's service would be a second agent of this machine.
    if face == Face::Tray && runtime.block_on(Meant::by(&resolved).is_the_machines()) {
        return show(runtime, &given, started_by);
    }
    let has_way_to_be_told = face == Face::Tray || resolved.panel_is_asked_for();
    if resolved.config.coordinator.is_none() && !has_way_to_be_told {
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
    let agent = match (Agent::open(resolved.config.clone(), shutdown.clone()), face) {
        (Ok(agent), _) => agent.with_panel(given),
        (Err(AgentError::AlreadyRunning { .. }), Face::Tray) => {
            return show(runtime, &given, started_by);
        }
        (Err(error), _) => return Err(failed(error)),
    };
    let control = agent.control();
    // In this order: signals are listened for before anybody hears that the agent is up, and its stop
    // is told before it has stopped.
    let serving = async move {
        // Whoever hears that it is up may ask it to stop, and hears of that before its end.
        tokio::select! {
            biased;
            () = shutdown.clone().watch_signals() => Ok(()),
            () = service::announce(shutdown) => Ok(()),
            ended = agent.run() => ended,
        }
    };
    let ended = match face {
        Face::CommandLine => finish(runtime, serving),
        Face::Tray => tray::run(runtime, &resolved.config, control, serving),
    };
    ended.map_err(failed)
}

/// Shows the agent that is there already to a person who wanted to start it.
fn show(runtime: Runtime, given: &Given, started_by: StartedBy) -> Result<(), Failure> {
    match started_by {
        StartedBy::Somebody => finish(runtime, tray::show_the_one_that_runs(given)),
        StartedBy::Login => Ok(()),
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
