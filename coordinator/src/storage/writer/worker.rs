//! The writer's thread: takes what waits, commits it, answers, and probes a failing store.

use std::error::Error;
use std::fmt::Write as _;
use std::mem;
use std::sync::Arc;
use std::thread;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::{CommitError, Shared, StorageHealth, Submission};
use crate::storage::{Change, Store, StoreError};

pub(super) struct Worker {
    store: Box<dyn Store>,
    shared: Arc<Shared>,
    backoff: Backoff,
    last_error: Option<Arc<StoreError>>,
    failing_since: Option<DateTime<Utc>>,
}

enum Work {
    Commit(Vec<Submission>),
    Probe,
    End,
}

impl Worker {
    pub(super) fn new(store: Box<dyn Store>, shared: Arc<Shared>, backoff: Backoff) -> Self {
        Self {
            store,
            shared,
            backoff,
            last_error: None,
            failing_since: None,
        }
    }

    pub(super) fn run(mut self) {
        loop {
            match self.next_work() {
                Work::Commit(submissions) => self.settle(submissions),
                // The outcome is in the report; nobody waits for it.
                Work::Probe => drop(self.commit(&[])),
                Work::End => return self.store.close(),
            }
        }
    }

    fn next_work(&self) -> Work {
        let mut queue = self.shared.queue.lock();
        loop {
            if !queue.waiting.is_empty() {
                return Work::Commit(mem::take(&mut queue.waiting));
            }
            if queue.stopping {
                return Work::End;
            }
            match self.backoff.retry_at() {
                None => self.shared.woken.wait(&mut queue),
                Some(retry_at) => {
                    let pause = retry_at.saturating_duration_since(Instant::now());
                    if pause.is_zero() {
                        return Work::Probe;
                    }
                    self.shared.woken.wait_for(&mut queue, pause);
                }
            }
        }
    }

    /// Commits the submissions as one batch and answers each.
    fn settle(&mut self, submissions: Vec<Submission>) {
        let settled = submissions.len() as u64;
        let mut batch = Vec::with_capacity(submissions.len());
        let mut answers = Vec::with_capacity(submissions.len());
        for submission in submissions {
            batch.extend(submission.changes);
            answers.push(submission.done);
        }
        let result = match self.refusal() {
            Some(refusal) => Err(refusal),
            None if batch.is_empty() => Ok(()),
            None => self.commit(&batch),
        };
        for answer in answers {
            answer(result.clone());
        }
        self.shared.settled.send_modify(|count| *count += settled);
    }

    /// Returns why nothing is tried now. The last batch before the end always is.
    fn refusal(&self) -> Option<CommitError> {
        let cause = Arc::clone(self.last_error.as_ref()?);
        let retry_at = self.backoff.retry_at()?;
        let retry_in = retry_at.saturating_duration_since(Instant::now());
        let stopping = self.shared.queue.lock().stopping;
        (!retry_in.is_zero() && !stopping).then_some(CommitError::BackingOff { retry_in, cause })
    }

    fn commit(&mut self, batch: &[Change]) -> Result<(), CommitError> {
        let started = Instant::now();
        let committed = self.store.commit(batch);
        let took = started.elapsed();
        match committed {
            Ok(()) => {
                self.healed();
                let mut report = self.shared.report.lock();
                report.health = StorageHealth::Healthy;
                report.counters.commits += 1;
                report.counters.agents_committed += batch.len() as u64;
                report.counters.last_commit = Some(took);
                Ok(())
            }
            Err(error) => {
                let error = Arc::new(error);
                self.failed(Arc::clone(&error));
                Err(CommitError::Store(error))
            }
        }
    }

    fn healed(&mut self) {
        self.backoff.succeeded();
        self.last_error = None;
        if let Some(since) = self.failing_since.take() {
            tracing::info!(%since, "Storage works again");
        }
    }

    fn failed(&mut self, error: Arc<StoreError>) {
        self.backoff.failed(Instant::now());
        let since = *self.failing_since.get_or_insert_with(Utc::now);
        let detail = with_causes(&*error);
        tracing::error!(error = detail, %since, "Storage commit failed");
        self.last_error = Some(error);
        let mut report = self.shared.report.lock();
        report.counters.failed_commits += 1;
        report.health = StorageHealth::Failing { since, detail };
    }
}

/// Lets nobody wait for a thread that is gone, whatever ended it.
impl Drop for Worker {
    fn drop(&mut self) {
        let abandoned = {
            let mut queue = self.shared.queue.lock();
            queue.stopping = true;
            mem::take(&mut queue.waiting)
        };
        drop(abandoned);
        if thread::panicking() {
            self.shared.report.lock().health = StorageHealth::Failing {
                since: Utc::now(),
                detail: "the storage writer ended in a panic".to_owned(),
            };
        }
        self.shared.settled.send_replace(u64::MAX);
    }
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, ": {error}").expect("writing to a String cannot fail");
        cause = error.source();
    }
    text
}
