//! Writes the status for one engine, for as long as that is the one that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::AgentStatus;
use crate::config::Config;

/// A handle to the status; clones write for the same engine.
#[derive(Debug, Clone)]
pub(crate) struct StatusWriter {
    status: watch::Sender<AgentStatus>,
    /// Read and written under the status's own lock only.
    has_retired: Arc<AtomicBool>,
}

impl StatusWriter {
    /// Begins with a new engine; what still runs in earlier ones stays counted.
    pub(crate) fn begin(status: watch::Sender<AgentStatus>, config: &Config) -> Self {
        status.send_modify(|status| {
            *status = AgentStatus {
                paused: status.paused,
                finishing: status.finishing,
                ..AgentStatus::starting(config)
            };
        });
        Self {
            status,
            has_retired: Arc::default(),
        }
    }

    /// Leaves the status to the next engine: only the end of what runs in this one is still told.
    pub(crate) fn retire(&self) {
        self.status.send_modify(|status| {
            self.has_retired.store(true, Ordering::Relaxed);
            status.finishing += std::mem::take(&mut status.running);
        });
    }

    /// Makes a change, which says whether it is one.
    pub(crate) fn write(&self, change: impl FnOnce(&mut AgentStatus) -> bool) {
        self.status
            .send_if_modified(|status| !self.has_retired() && change(status));
    }

    /// Counts a request that the agent carries.
    pub(crate) fn request_began(&self) {
        self.count(|running| running + 1);
    }

    /// Counts that it has ended.
    pub(crate) fn request_ended(&self) {
        self.count(|running| running.saturating_sub(1));
    }

    fn count(&self, change: impl FnOnce(usize) -> usize) {
        self.status.send_modify(|status| {
            let running = if self.has_retired() {
                &mut status.finishing
            } else {
                &mut status.running
            };
            *running = change(*running);
        });
    }

    fn has_retired(&self) -> bool {
        self.has_retired.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Phase;
    use ollama_coordinator_common::base_url::BaseUrl;

    #[test]
    fn earlier_engine_only_tells_what_still_runs_in_it() {
        let url = |text| BaseUrl::parse(text, 1).unwrap();
        let config = Config::new(url("127.0.0.1:1"), url("127.0.0.1:2"), "/nowhere".into());
        let status = watch::Sender::new(AgentStatus::starting(&config));
        let earlier = StatusWriter::begin(status.clone(), &config);
        earlier.request_began();
        earlier.request_began();

        earlier.retire();
        let now = StatusWriter::begin(status.clone(), &config);
        now.request_began();
        earlier.write(|status| {
            status.phase = Phase::Stopped;
            true
        });
        earlier.request_ended();

        let status = status.borrow();
        assert_eq!((status.running, status.finishing), (1, 1));
        assert_eq!(status.phase, Phase::Starting);
    }
}
