//! The connections that a fleet's agents share: each takes the next job that is due.

use std::collections::VecDeque;
use std::sync::Arc;

use ollama_coordinator_common::http::HttpClient;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::agent::Cast;
use super::roster::{AgentCall, CallOutcome, Job};
use super::stats::{Stats, count};

/// Jobs that are due, oldest first. At most one per agent.
#[derive(Debug)]
pub(super) struct JobQueue {
    jobs: Mutex<VecDeque<Job>>,
    ready: Semaphore,
}

impl Default for JobQueue {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            ready: Semaphore::new(0),
        }
    }
}

impl JobQueue {
    pub(super) fn push(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.ready.add_permits(1);
    }

    async fn next(&self) -> Job {
        loop {
            let ready = self.ready.acquire().await;
            ready.expect("the queue is never closed").forget();
            if let Some(job) = self.jobs.lock().pop_front() {
                return job;
            }
        }
    }
}

/// A job that is over.
#[derive(Debug)]
pub(super) struct Settled {
    pub(super) job: Job,
    pub(super) outcome: CallOutcome,
}

/// One connection.
pub(super) struct Worker {
    cast: Arc<Cast>,
    stats: Arc<Stats>,
    queue: Arc<JobQueue>,
    report: mpsc::Sender<Settled>,
    client: HttpClient,
}

impl Worker {
    pub(super) fn new(
        cast: &Arc<Cast>,
        stats: &Arc<Stats>,
        queue: &Arc<JobQueue>,
        report: mpsc::Sender<Settled>,
    ) -> Self {
        Self {
            client: cast.client(),
            cast: Arc::clone(cast),
            stats: Arc::clone(stats),
            queue: Arc::clone(queue),
            report,
        }
    }

    /// Works until nobody listens to its reports.
    pub(super) async fn work(mut self) {
        loop {
            let job = self.queue.next().await;
            let started = Instant::now();
            self.stats.lag.record(started - job.due);
            let outcome = self
                .cast
                .perform(&mut self.client, job.agent, job.call)
                .await;
            self.count(&job, outcome, started);
            if self.report.send(Settled { job, outcome }).await.is_err() {
                return;
            }
        }
    }

    fn count(&self, job: &Job, outcome: CallOutcome, started: Instant) {
        let stats = &self.stats;
        match (job.call, outcome) {
            (AgentCall::Register { .. }, CallOutcome::Granted { epoch, .. }) => {
                stats.acknowledge(job.agent, epoch, started.elapsed());
            }
            (AgentCall::Register { .. }, _) => count(&stats.registrations_failed),
            (AgentCall::Heartbeat { .. }, outcome) => {
                count(&stats.heartbeats_sent);
                match outcome {
                    CallOutcome::Granted { .. } | CallOutcome::Left => {
                        count(&stats.heartbeats_ok);
                        stats.heartbeat_latency.record(started.elapsed());
                    }
                    CallOutcome::Unknown => count(&stats.unknown_agent),
                    CallOutcome::Failed { .. } => count(&stats.heartbeats_failed),
                }
            }
            (AgentCall::Goodbye, CallOutcome::Left) => count(&stats.goodbyes_ok),
            (AgentCall::Goodbye, _) => {}
        }
    }
}
