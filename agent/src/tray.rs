//! The agent's icon on a desktop: what it shows is a value computed from the status, and the system's
//! own tray shows that value. Without a tray, or with a broken one, the agent serves all the same.

#[cfg_attr(any(windows, target_os = "macos"), path = "tray/native.rs")]
#[cfg_attr(not(any(windows, target_os = "macos")), path = "tray/notifier.rs")]
mod backend;
mod clicks;
mod condition;
mod desktop;
mod diagnostics;
mod icon;
mod menu;
mod view;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use self::view::Views;
use crate::app::AgentError;
use crate::commands::Failure;
use crate::config::{Config, DEFAULT_PANEL_PORT, Given};
use crate::control::Control;
use crate::local::{LocalError, RunningAgent};
use crate::panel::Opener;
use crate::platform;

pub use self::condition::Condition;
pub use self::icon::{Icon, Pixels};
pub use self::menu::{Action, Entry, Item, Menu};

/// The name under which trays and their settings list it.
const TITLE: &str = "Ollama agent";

/// How many clicks may wait for the ones before.
const CLICKS: usize = 8;

/// Shows the settings of the agent that is here already: whoever starts another wants to see it. That
/// of the machine's service is not this user's to open, and its page says who may.
///
/// # Errors
/// It has no panel.
pub async fn show_the_one_that_runs(given: &Given) -> Result<(), Failure> {
    let link = match RunningAgent::find(given) {
        Ok(mut agent) => agent.panel_link(Opener::Own).await?,
        Err(LocalError::Closed { .. }) => format!("http://127.0.0.1:{DEFAULT_PANEL_PORT}/"),
        Err(error) => return Err(error.into()),
    };
    tracing::info!("An agent is here already, opening its settings");
    desktop::open(link);
    Ok(())
}

/// Runs `agent`, which `control` steers, until it ends, and shows it in the tray meanwhile.
///
/// # Errors
/// What the agent ends with.
pub fn run(
    runtime: Runtime,
    config: &Config,
    control: Control,
    agent: impl Future<Output = Result<(), AgentError>> + Send + 'static,
) -> Result<(), AgentError> {
    let (clicked, clicks) = mpsc::channel(CLICKS);
    let views = Views::new(control.status(), config.panel);
    let state_dir = config.state_dir.clone();
    let serving = async move {
        tokio::select! {
            ended = agent => ended,
            never = clicks::perform(clicks, &control, &state_dir) => match never {},
        }
    };
    platform::leave_console();
    backend::run(runtime, serving, views, clicked)
}
