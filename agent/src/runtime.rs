//! Looks at the runtime from time to time and publishes what it sees.
//!
//! The runtime may come and go; the agent stays. Nothing is ever changed there.

use std::num::NonZeroU32;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpTimeouts};
use ollama_coordinator_common::probe::{ANSWER_LIMIT, ProbeError, probe};
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeReport, RuntimeStatus};
use tokio::sync::watch;

use crate::config::Timing;
use crate::error_chain;
use crate::status::writer::StatusWriter;

/// A busy machine may answer one look too late; only the next one in a row counts.
const TIMEOUTS_TOLERATED: u32 = 1;

/// What the operator says of how many requests the runtime serves at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slots {
    /// Whatever it says itself.
    pub(crate) capacity: Option<NonZeroU32>,
    /// If it is an Ollama, which says nothing.
    pub(crate) ollama: Option<NonZeroU32>,
}

impl Slots {
    fn of(self, report: &RuntimeReport) -> Option<NonZeroU32> {
        let ollama = self.ollama.filter(|_| report.kind == RuntimeKind::Ollama);
        self.capacity.or(report.slots).or(ollama)
    }
}

/// Looks at the runtime for ever.
pub(crate) async fn watch_runtime(
    (runtime, slots): (BaseUrl, Slots),
    timing: Timing,
    reports: watch::Sender<Option<RuntimeReport>>,
    status: StatusWriter,
) {
    let timeouts = HttpTimeouts {
        connect: timing.probe_answer,
        answer: timing.probe_answer,
    };
    let mut client = HttpClient::new(runtime, timeouts).with_answer_limit(ANSWER_LIMIT);
    let mut sight = Sight::default();
    loop {
        let seen = probe(&mut client).await.map(|mut report| {
            report.slots = slots.of(&report);
            report
        });
        let error = seen.as_ref().err().map(|error| error_chain(error));
        let change = sight.observe(seen);
        tell(change, &client, &sight, error.as_deref());
        let is_running = sight.report.status == RuntimeStatus::Running;
        let error = error.filter(|_| !is_running);
        publish(&reports, &sight.report);
        status.write(|status| {
            let before = status.runtime.clone();
            status.runtime.report = Some(sight.report.clone());
            status.runtime.error = error;
            status.runtime != before
        });
        let answered = is_running && sight.timeouts == 0;
        let delay = if answered {
            timing.probe_running
        } else {
            timing.probe_missing
        };
        tokio::time::sleep(delay).await;
    }
}

fn publish(reports: &watch::Sender<Option<RuntimeReport>>, report: &RuntimeReport) {
    reports.send_if_modified(|last| {
        let is_new = last.as_ref() != Some(report);
        if is_new {
            *last = Some(report.clone());
        }
        is_new
    });
}

/// What is believed of the runtime after the looks so far; pure.
#[derive(Debug, Default)]
struct Sight {
    report: RuntimeReport,
    timeouts: u32,
    has_looked: bool,
}

/// What one look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    None,
    Appeared,
    Vanished,
    WasNeverThere,
}

impl Sight {
    fn observe(&mut self, seen: Result<RuntimeReport, ProbeError>) -> Change {
        let was_running = self.report.status == RuntimeStatus::Running;
        let is_first_look = !std::mem::replace(&mut self.has_looked, true);
        match seen {
            Ok(report) => {
                self.timeouts = 0;
                self.report = report;
                if was_running {
                    Change::None
                } else {
                    Change::Appeared
                }
            }
            Err(error) => {
                let is_late = matches!(error, ProbeError::NotAnswering(HttpError::Timeout { .. }));
                self.timeouts = if is_late {
                    self.timeouts.saturating_add(1)
                } else {
                    0
                };
                let is_tolerated = is_late && self.timeouts <= TIMEOUTS_TOLERATED;
                if was_running && is_tolerated {
                    return Change::None;
                }
                self.report = RuntimeReport {
                    kind: self.report.kind,
                    ..RuntimeReport::default()
                };
                match (was_running, is_first_look) {
                    (true, _) => Change::Vanished,
                    (false, true) => Change::WasNeverThere,
                    (false, false) => Change::None,
                }
            }
        }
    }
}

fn tell(change: Change, client: &HttpClient, sight: &Sight, error: Option<&str>) {
    let runtime = client.base();
    match change {
        Change::None => {
            if let Some(error) = error {
                tracing::debug!(runtime.url = %runtime, error, "Runtime did not answer a look");
            }
        }
        Change::Appeared => tracing::info!(
            runtime.url = %runtime,
            runtime.kind = ?sight.report.kind,
            runtime.version = sight.report.version.as_deref().unwrap_or("unknown"),
            models = sight.report.models.len(),
            "Runtime answered"
        ),
        Change::Vanished => tracing::warn!(
            runtime.url = %runtime,
            error,
            "Runtime stopped answering; serving goes on when it is back"
        ),
        Change::WasNeverThere => tracing::warn!(
            runtime.url = %runtime,
            error,
            "Runtime did not answer; joining anyway, serving starts when it appears. Ollama is at \
             https://ollama.com/download; ollama-agent doctor looks for a runtime elsewhere"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn running() -> RuntimeReport {
        RuntimeReport {
            status: RuntimeStatus::Running,
            ..RuntimeReport::default()
        }
    }

    fn late() -> ProbeError {
        HttpError::Timeout {
            stage: "answer",
            after: Duration::from_secs(5),
        }
        .into()
    }

    #[test]
    fn one_late_answer_is_forgiven_and_two_are_not() {
        let mut sight = Sight::default();

        assert_eq!(sight.observe(Ok(running())), Change::Appeared);
        assert_eq!(sight.observe(Err(late())), Change::None);
        assert_eq!(sight.report.status, RuntimeStatus::Running);
        assert_eq!(sight.observe(Err(late())), Change::Vanished);
        assert_eq!(sight.report.status, RuntimeStatus::NotAnswering);
        assert_eq!(sight.observe(Err(late())), Change::None);
    }

    #[test]
    fn answer_between_two_late_ones_counts() {
        let mut sight = Sight::default();

        for _ in 0..3 {
            sight.observe(Ok(running()));
            sight.observe(Err(late()));
        }

        assert_eq!(sight.report.status, RuntimeStatus::Running);
    }

    #[test]
    fn refused_connection_counts_at_once_and_is_told_once() {
        let mut sight = Sight::default();

        assert_eq!(
            sight.observe(Err(ProbeError::Coordinator)),
            Change::WasNeverThere
        );
        assert_eq!(sight.observe(Err(ProbeError::Coordinator)), Change::None);
        assert_eq!(sight.observe(Ok(running())), Change::Appeared);
        assert_eq!(
            sight.observe(Err(ProbeError::Coordinator)),
            Change::Vanished
        );
    }
}
