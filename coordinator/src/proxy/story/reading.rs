//! What can be asked of the book.

use std::collections::BTreeMap;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::request::RequestView;
use tokio_util::sync::CancellationToken;

use super::Storybook;
use super::figures::{Figures, OTHER};
use super::trace::{ExportError, Tracer};
use super::view::{self, Filter};
use crate::registry::agent::Moment;

/// The most queues whose length is shown apart.
const MAX_QUEUES: usize = 200;

/// Why a request cannot be cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    /// The log does not have it.
    #[error("no request has this id")]
    Unknown,
    /// It does not run any more.
    #[error("the request has ended")]
    Ended,
}

impl Storybook {
    /// Shows the requests that `filter` lets pass: those that run, then the others, newest first.
    pub fn requests(&self, filter: &Filter, most: usize) -> Vec<RequestView> {
        let now = Moment::now();
        let records = if filter.is_live {
            self.0.log.running()
        } else {
            self.0.log.all()
        };
        let shown = records.iter().filter(|record| filter.takes(record));
        let shown = shown.take(most).map(|record| view::request(record, now));
        shown.collect()
    }

    /// Shows the newest request with this id.
    pub fn request(&self, id: &str) -> Option<RequestView> {
        let record = self.0.log.find(id)?;
        Some(view::request(&record, Moment::now()))
    }

    /// Has the newest request with this id end that runs; its client is told who wanted that.
    pub fn cancel(&self, id: &str) -> Result<(), CancelError> {
        let log = &self.0.log;
        let mut running = log.running().into_iter();
        let wanted = running.find(|record| record.id.as_str() == id && !record.has_ended());
        let Some(record) = wanted else {
            let is_known = log.find(id).is_some();
            return Err(if is_known {
                CancelError::Ended
            } else {
                CancelError::Unknown
            });
        };
        tracing::info!(request.id = id, "Request was cancelled by an operator");
        record.cancel.want();
        Ok(())
    }

    /// Returns the counts as they are.
    pub fn counted(&self) -> &Figures {
        &self.0.figures
    }

    /// Returns the counts, after having dropped those of agents and models that are unknown by now.
    pub fn figures(&self) -> &Figures {
        let registry = &self.0.registry;
        let knows_model = |model: &str| self.0.balancer.knows(model);
        self.0
            .figures
            .keep(knows_model, |agent| registry.get(agent).is_some());
        &self.0.figures
    }

    /// Returns how many requests wait, by model.
    pub fn queue_lengths(&self) -> BTreeMap<String, u64> {
        let mut lengths = BTreeMap::new();
        for (model, length) in self.0.balancer.totals().queues {
            let label = model.strip_suffix(":latest").unwrap_or(&model);
            let has_room = lengths.len() < MAX_QUEUES;
            let label = if has_room { label } else { OTHER };
            *lengths.entry(label.to_owned()).or_default() += length as u64;
        }
        lengths
    }

    /// Returns how often each agent was ejected.
    pub fn ejections(&self) -> Vec<(AgentId, u64)> {
        self.0.balancer.totals().ejections
    }

    /// Returns how many requests could not be told to the collector of traces.
    pub fn untraced(&self) -> u64 {
        self.0.tracer.as_ref().map_or(0, Tracer::dropped)
    }

    /// Sends traces until `token` is cancelled, and then what is left. Without traces it only ends.
    pub async fn export(self, token: CancellationToken) -> Result<(), ExportError> {
        let exporter = self.0.exporter.lock().take();
        match exporter {
            Some(exporter) => exporter.run(token).await,
            None => Ok(()),
        }
    }
}
