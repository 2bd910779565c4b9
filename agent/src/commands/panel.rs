//! `ollama-agent panel`: where the settings panel of the agent that runs here is.

use clap::Args;

use super::{Failure, print};
use crate::config::Given;
use crate::local::RunningAgent;

/// Nothing to choose.
#[derive(Debug, Args)]
pub struct PanelArgs {}

/// Prints the panel's URL, with the token that opens it.
///
/// # Errors
/// No agent runs here, or it has no panel.
pub async fn run(_args: &PanelArgs, given: &Given) -> Result<(), Failure> {
    let mut agent = RunningAgent::find(given)?;
    agent.status().await?;
    print(&format!("{}\n", agent.panel_url()))
}
