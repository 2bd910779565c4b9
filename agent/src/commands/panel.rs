//! `ollama-agent panel`: where the settings panel of the agent that runs here is.

use clap::Args;

use super::{Failure, print};
use crate::config::Given;
use crate::local::RunningAgent;
use crate::panel::Opener;

/// Nothing to choose.
#[derive(Debug, Args)]
pub struct PanelArgs {}

/// Prints a link that opens the panel.
///
/// # Errors
/// No agent runs here, or it has no panel.
pub async fn run(_args: &PanelArgs, given: &Given) -> Result<(), Failure> {
    let mut agent = RunningAgent::find(given)?;
    print(&format!("{}\n", agent.panel_link(Opener::Anybody).await?))
}
