//! The engines of a process: the one that counts, and earlier ones that finish what runs in them.

use ollama_coordinator_common::base_url::BaseUrl;
use tokio::task::{Id, JoinSet};

use super::AgentError;
use super::engine::{Leaving, run_engine};
use crate::config::Config;
use crate::control::Control;
use crate::error_chain;
use crate::status::writer::StatusWriter;

/// Owns every engine until its end.
#[derive(Debug, Default)]
pub(super) struct Engines(JoinSet<Result<(), AgentError>>);

/// The engine that counts.
#[derive(Debug)]
pub(super) struct Engine {
    id: Id,
    coordinator: Option<BaseUrl>,
    leaving: Leaving,
    status: StatusWriter,
}

impl Engines {
    /// Starts the one that counts from now on.
    pub(super) fn start(&mut self, config: Config, control: &Control) -> Engine {
        let status = StatusWriter::begin(control.status_sender(), &config);
        let coordinator = config.coordinator.clone();
        let leaving = Leaving::default();
        let running = run_engine(config, control.clone(), status.clone(), leaving.clone());
        Engine {
            id: self.0.spawn(running).id(),
            coordinator,
            leaving,
            status,
        }
    }

    /// Waits for the end of one of them.
    pub(super) async fn end_of(&mut self, engine: &Engine) -> Result<(), AgentError> {
        while let Some(ended) = self.0.join_next_with_id().await {
            match ended {
                Ok((id, ended)) if id == engine.id => return ended,
                Ok((_, Err(error))) => {
                    tracing::debug!(error = error_chain(&error), "An earlier engine failed");
                }
                Ok((_, Ok(()))) => {}
                Err(panicked) => {
                    tracing::error!(error = %panicked, "A part of the agent failed");
                    if panicked.id() == engine.id {
                        break;
                    }
                }
            }
        }
        Err(AgentError::TaskEnded)
    }

    /// Waits for the end of all, and returns what the last one came to.
    pub(super) async fn all_end(mut self, last: &Engine) -> Result<(), AgentError> {
        let ended = self.end_of(last).await;
        while self.0.join_next().await.is_some() {}
        ended
    }
}

impl Engine {
    /// Has it take nothing more, say goodbye, and end once what runs has ended.
    pub(super) fn leave(&self) {
        self.leaving.asked.cancel();
    }

    /// Has it make way for one that asks this coordinator: at once, unless both ask the same one,
    /// which has to hear the goodbye first.
    pub(super) async fn make_way_for(self, coordinator: Option<BaseUrl>) {
        self.status.retire();
        self.leave();
        if self.coordinator.is_some() && self.coordinator == coordinator {
            self.leaving.said_goodbye.cancelled().await;
        }
    }
}
