//! What both binaries can do beside their work: shell completions, man pages, the service.
//!
//! Completions and man pages come from the command line itself, so that they cannot differ from it.

use std::io::{self, Write as _};

use clap::Subcommand;

pub mod completions;
pub mod man;

use crate::service::{self, Product, ServiceArgs, ServiceError};
use completions::CompletionsArgs;
use man::ManArgs;

/// What both binaries can do beside their work.
#[derive(Debug, Subcommand)]
pub enum CommonCommand {
    /// Start this program with the machine, as a service
    Service(ServiceArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
    /// Print the man page, or write those of all commands
    Man(ManArgs),
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Returns the exit code that the help text promises.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Service(error) => error.exit_code(),
            Self::Output(_) => 1,
        }
    }
}

impl CommonCommand {
    /// Does it for the binary with this command line.
    ///
    /// # Errors
    /// The service cannot be changed, or the output cannot be written.
    pub fn run(self, command: clap::Command, product: &Product) -> Result<(), CommandError> {
        match self {
            Self::Service(args) => Ok(service::run(args, command, product)?),
            Self::Completions(args) => print(&completions::render(args, command)),
            Self::Man(args) => match args.dir {
                Some(dir) => Ok(man::write_all(command, &dir)?),
                None => print(&man::render(command)?),
            },
        }
    }
}

/// Prints; a reader that has seen enough is no error.
fn print(text: &[u8]) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
