//! What the binary does besides serving.

pub mod config;
pub mod doctor;
pub mod panel;
pub mod pause;
pub mod status;

use std::io::Write as _;

use clap::{CommandFactory as _, Subcommand};
use ollama_coordinator_common::commands::CommonCommand;
use ollama_coordinator_common::service::Serve;

use crate::config::{Cli, Given};
use crate::service;

/// What the binary can do besides serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the settings that are in force, or where their file is
    Config(config::ConfigArgs),
    /// Show how the agent is that runs here
    Status(status::StatusArgs),
    /// Find out what keeps this machine from serving; changes nothing
    Doctor(Box<doctor::DoctorArgs>),
    /// Print a link that opens the settings panel of this machine once, within a minute
    Panel(panel::PanelArgs),
    /// Take no requests here, for a while or until `resume`
    Pause(pause::PauseArgs),
    /// Take requests here again
    Resume(pause::ResumeArgs),
    /// What the coordinator's command line has too.
    #[command(flatten)]
    Common(CommonCommand),
}

impl Command {
    /// Does it and returns the exit status; `serve` is how the agent runs as a service.
    ///
    /// # Errors
    /// Says why not, and the exit status that stands for it.
    pub async fn run(self, given: &Given, serve: Serve) -> Result<u8, Failure> {
        match self {
            Self::Config(args) => config::run(&args, given)?,
            Self::Status(args) => return status::run(&args, given).await,
            Self::Doctor(args) => return doctor::run(&args, given).await,
            Self::Panel(args) => panel::run(&args, given).await?,
            Self::Pause(args) => pause::pause(&args, given).await?,
            Self::Resume(args) => pause::resume(&args, given).await?,
            Self::Common(command) => command
                .run(Cli::command(), &service::product(serve))
                .map_err(|error| Failure::new(error.exit_code(), &error))?,
        }
        Ok(0)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The exit status.
    pub code: u8,
    /// What to tell.
    pub message: String,
}

impl Failure {
    /// Something is wrong with what was asked for.
    pub fn usage(error: &dyn std::error::Error) -> Self {
        Self::new(2, error)
    }

    /// Takes over an error with its causes.
    pub fn new(code: u8, error: &dyn std::error::Error) -> Self {
        let message = crate::error_chain(error);
        Self { code, message }
    }
}

/// Writes a result to standard output; a reader that has gone is no failure.
///
/// # Errors
/// It cannot be written.
pub fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(1, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
