//! The one writer: commits on a thread of its own, everything that waits as one batch, and
//! answers each caller when its changes are durable or refused.

mod backoff;
mod worker;

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use parking_lot::{Condvar, Mutex};
use tokio::sync::{oneshot, watch};

use self::backoff::Backoff;
use self::worker::Worker;
use super::{Change, Store, StoreError};

/// Submissions that may wait; at a commit of some milliseconds the last one waits no longer.
const MAX_QUEUED: usize = 16_384;
/// The pause after a failed commit, and how far it doubles.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Hands changes to the writer's thread; cheap to clone. The thread ends, once everything queued
/// is settled, when the last clone is gone or [`Writer::stop`] is called.
#[derive(Debug, Clone)]
pub struct Writer {
    handle: Arc<Handle>,
}

impl Writer {
    /// Starts the writer's thread on `store`, which has been loaded.
    pub fn start(store: Box<dyn Store>) -> (Self, WriterThread) {
        Self::start_with(store, RETRY_MIN, RETRY_MAX)
    }

    /// Like [`Writer::start`], with the shortest and longest pause after a failed commit.
    #[doc(hidden)]
    pub fn start_with(store: Box<dyn Store>, min: Duration, max: Duration) -> (Self, WriterThread) {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            woken: Condvar::new(),
            settled: watch::Sender::new(0),
            report: Mutex::default(),
        });
        let worker = Worker::new(store, Arc::clone(&shared), Backoff::new(min, max));
        let thread = thread::Builder::new()
            .name("storage-writer".to_owned())
            .spawn(|| worker.run())
            .expect("the operating system has room for one more thread at start-up");
        let handle = Arc::new(Handle { shared });
        (Self { handle }, WriterThread { thread })
    }

    /// Queues `changes`, which are committed together; `done` runs on the writer's thread exactly
    /// once, after they are durable or refused. It must be quick and not block: others wait.
    ///
    /// # Errors
    /// The queue is full or the writer has stopped; `done` is dropped without being called.
    pub fn submit(
        &self,
        changes: Vec<Change>,
        done: impl FnOnce(Result<(), CommitError>) + Send + 'static,
    ) -> Result<(), CommitError> {
        let mut queue = self.shared().queue.lock();
        if queue.stopping {
            return Err(CommitError::Stopped);
        }
        if queue.waiting.len() >= MAX_QUEUED {
            return Err(CommitError::QueueFull);
        }
        queue.waiting.push(Submission {
            changes,
            done: Box::new(done),
        });
        queue.submitted += 1;
        drop(queue);
        self.shared().woken.notify_one();
        Ok(())
    }

    /// Makes `changes` durable, together.
    ///
    /// # Errors
    /// They are not stored; see [`CommitError`].
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), CommitError> {
        let (tx, rx) = oneshot::channel();
        self.submit(changes, move |result| {
            // The caller may have gone; the changes are stored all the same.
            drop(tx.send(result));
        })?;
        rx.await.unwrap_or(Err(CommitError::Stopped))
    }

    /// Waits until everything that was submitted before is settled.
    pub async fn flush(&self) {
        let submitted = self.shared().queue.lock().submitted;
        let mut settled = self.shared().settled.subscribe();
        settled
            .wait_for(|settled| *settled >= submitted)
            .await
            .expect("the sender is kept by this handle");
    }

    /// Refuses further submissions; those that wait are settled first.
    pub fn stop(&self) {
        self.shared().stop();
    }

    /// Returns whether the last commit succeeded.
    pub fn health(&self) -> StorageHealth {
        self.shared().report.lock().health.clone()
    }

    /// Returns what has been committed so far.
    pub fn counters(&self) -> WriterCounters {
        self.shared().report.lock().counters
    }

    fn shared(&self) -> &Shared {
        &self.handle.shared
    }
}

/// Joins the writer's thread.
#[derive(Debug)]
#[must_use = "changes may be lost when the process ends before the thread has"]
pub struct WriterThread {
    thread: thread::JoinHandle<()>,
}

impl WriterThread {
    /// Waits until everything queued is settled and the store is closed. Blocks: call it after
    /// [`Writer::stop`], or when every [`Writer`] is gone.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("Storage writer ended in a panic");
        }
    }
}

/// Whether changes reach the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum StorageHealth {
    /// The last commit succeeded, or none was needed yet.
    #[default]
    Healthy,
    /// Commits fail and are refused; the writer goes on trying by itself.
    Failing {
        /// When the first of these commits failed.
        since: DateTime<Utc>,
        /// Why the last one failed, with its causes.
        detail: String,
    },
}

/// What a writer has done since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterCounters {
    /// Batches that became durable.
    pub commits: u64,
    /// Batches that did not.
    pub failed_commits: u64,
    /// Agents put or removed in durable batches.
    pub agents_committed: u64,
    /// How long the last durable batch took.
    pub last_commit: Option<Duration>,
}

/// Changes were not stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Too many changes wait already; try again shortly.
    #[error("too many changes wait to be stored")]
    QueueFull,
    /// The coordinator is shutting down.
    #[error("the storage writer has stopped")]
    Stopped,
    /// The last commit failed and the next try is not due.
    #[error("storage failed and is tried again in {} s", .retry_in.as_secs_f64().ceil())]
    BackingOff {
        /// When it makes sense to ask again.
        retry_in: Duration,
        /// Why the last commit failed.
        #[source]
        cause: Arc<StoreError>,
    },
    /// The store refused this batch.
    #[error("failed to commit")]
    Store(#[source] Arc<StoreError>),
}

/// Closes the queue when the last [`Writer`] goes.
#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    woken: Condvar,
    settled: watch::Sender<u64>,
    report: Mutex<Report>,
}

impl Shared {
    fn stop(&self) {
        self.queue.lock().stopping = true;
        self.woken.notify_one();
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Submission>,
    submitted: u64,
    stopping: bool,
}

#[derive(Debug, Default)]
struct Report {
    health: StorageHealth,
    counters: WriterCounters,
}

struct Submission {
    changes: Vec<Change>,
    done: Box<dyn FnOnce(Result<(), CommitError>) + Send>,
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("changes", &self.changes.len())
            .finish_non_exhaustive()
    }
}
