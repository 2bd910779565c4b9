//! `ollama-agent pause` and `ollama-agent resume`: asks the agent that runs here.

use std::time::Duration;

use clap::Args;
use ollama_coordinator_common::duration;

use super::{Failure, print};
use crate::config::Given;
use crate::local::RunningAgent;

/// For how long.
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// For how long, such as 30m or 2h [default: until `ollama-agent resume`]
    #[arg(value_name = "DURATION", value_parser = duration::parse)]
    duration: Option<Duration>,
}

/// Nothing to choose.
#[derive(Debug, Args)]
pub struct ResumeArgs {}

/// Has the agent take no requests.
///
/// # Errors
/// No agent runs here, or it cannot be asked.
pub async fn pause(args: &PauseArgs, given: &Given) -> Result<(), Failure> {
    let mut agent = RunningAgent::find(given)?;
    let paused = agent.pause(args.duration).await?;
    let until = paused.paused.and_then(|pause| pause.until);
    print(&match until {
        Some(until) => format!("Paused until {until}; `ollama-agent resume` ends it\n"),
        None => "Paused until `ollama-agent resume`\n".to_owned(),
    })
}

/// Has the agent take requests again.
///
/// # Errors
/// No agent runs here, or it cannot be asked.
pub async fn resume(_args: &ResumeArgs, given: &Given) -> Result<(), Failure> {
    RunningAgent::find(given)?.resume().await?;
    print("Resumed\n")
}
