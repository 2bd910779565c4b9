//! `ollama-coordinator doctor`: what is wrong here, or with one agent, as text or as JSON.

use std::io::{self, Write as _};

use clap::Args;

use super::ask::{CommandError, UrlArgs, client};
use crate::config::storage::StorageArgs;
use crate::doctor::{local, one_agent};

/// What to look at.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Look at this agent, by name or id, from both sides
    #[arg(value_name = "AGENT")]
    pub agent: Option<String>,
    /// Which coordinator to ask.
    #[command(flatten)]
    pub coordinator: UrlArgs,
    /// Where its registry is, if it is on this machine.
    #[command(flatten)]
    pub storage: StorageArgs,
    /// Write JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Looks, shows what was found, and returns the exit code.
pub async fn run(args: DoctorArgs) -> Result<u8, CommandError> {
    let base = args.coordinator.base()?;
    let (text, json, code) = if let Some(agent) = &args.agent {
        let report = one_agent::examine(&mut client(base), agent).await?;
        (report.to_text(), report.to_json(), report.exit_code())
    } else {
        let report = local::examine(&base, args.storage.data_dir.clone()).await;
        (report.to_text(), report.to_json(), report.exit_code())
    };
    let shown = if args.json { json } else { text };
    match io::stdout().lock().write_all(shown.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(code),
    }
}
