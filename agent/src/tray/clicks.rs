//! Does what clicks ask for.

use std::convert::Infallible;
use std::path::Path;

use tokio::sync::mpsc;

use super::{Action, desktop, diagnostics};
use crate::control::Control;
use crate::pause::PauseError;

const DIAGNOSTICS: &str = "diagnostics.txt";

/// Does what comes, one after the other; `state_dir` is where texts go that no clipboard takes.
pub(super) async fn perform(
    mut clicks: mpsc::Receiver<Action>,
    control: &Control,
    state_dir: &Path,
) -> Infallible {
    while let Some(action) = clicks.recv().await {
        match action {
            Action::OpenDashboard => {
                let coordinator = control.status().borrow().coordinator.clone();
                open(coordinator.map(|url| url.to_string()));
            }
            Action::OpenSettings => open(control.panel_link()),
            Action::Pause(length) => tell(control.pause(length).await),
            Action::Resume => tell(control.resume().await),
            Action::CopyDiagnostics => {
                let text = diagnostics::describe(&control.status().borrow());
                desktop::copy(&text, &state_dir.join(DIAGNOSTICS)).await;
            }
            Action::Quit => control.quit(),
        }
    }
    std::future::pending().await
}

fn open(url: Option<String>) {
    if let Some(url) = url {
        desktop::open(url);
    } else {
        tracing::info!("There is nothing to open yet");
    }
}

fn tell(result: Result<(), PauseError>) {
    if let Err(error) = result {
        let error = crate::error_chain(&error);
        tracing::warn!(error, "The click changed nothing");
    }
}
