//! macOS and other Unixes: what Linux's `/sys` tells is not known here.

use std::io;
use std::path::PathBuf;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::system::GpuReading;

const STARTED: &str = "/Library/LaunchDaemons/ollama-agent.plist";
const STARTED_FOR_USER: &str = "Library/LaunchAgents/ollama-agent.plist";

/// Returns nothing: the GPU is part of the processor and its memory is the machine's.
pub(crate) fn graphics_cards() -> Option<Vec<GpuReading>> {
    None
}

/// Does nothing: the system has no such settings for one connection.
#[expect(clippy::unnecessary_wraps, reason = "it can fail on other systems")]
pub(crate) fn keep_little_unsent(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Returns the files by which launchd starts the agent, for the machine and for this user.
pub(crate) fn service_entries() -> Vec<PathBuf> {
    let user = std::env::home_dir().map(|home| home.join(STARTED_FOR_USER));
    [PathBuf::from(STARTED)].into_iter().chain(user).collect()
}

/// Returns nothing: the app is started with the environment of the desktop.
pub(crate) fn ollama_service_host() -> Option<String> {
    None
}

/// Returns the program that shows a page or a file as the user wants it.
pub(crate) fn opener() -> Command {
    let mut command = Command::new("open");
    command.process_group(0);
    command
}

/// Returns the program that puts what it reads into the clipboard.
pub(crate) fn clipboards() -> Vec<Command> {
    let mut pbcopy = Command::new("pbcopy");
    pbcopy.env("LC_CTYPE", "UTF-8");
    vec![pbcopy]
}
