//! Entry point: parse, log, run, report.

use std::process::ExitCode;

use ollama_agent::{AgentError, Config, error_chain, run};
use ollama_coordinator_common::logging;
use ollama_coordinator_common::shutdown::Shutdown;

const UNEXPECTED: u8 = 1;
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(error) => {
            let code = if error.print().is_ok() {
                error.exit_code()
            } else {
                1
            };
            return ExitCode::from(u8::try_from(code).unwrap_or(USAGE));
        }
    };
    if let Err(error) = logging::init(config.log_format) {
        return report(&error_chain(&error), USAGE);
    }
    // One thread is plenty for a few small messages per second, and keeps the agent small.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return report(&error_chain(&error), UNEXPECTED),
    };
    let ended = runtime.block_on(run_until_signal(config));
    // A name lookup that hangs in the system must not hold up the exit.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error_chain(&error), error.exit_code()),
    }
}

async fn run_until_signal(config: Config) -> Result<(), AgentError> {
    let shutdown = Shutdown::default();
    tokio::select! {
        ended = run(config, shutdown.clone()) => ended,
        () = shutdown.watch_signals() => Ok(()),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last word of the process, also without a log"
)]
fn report(error: &str, code: u8) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(code)
}
