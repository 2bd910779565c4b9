//! Named, supervised tasks: each has an owner, a name and an end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// What the end of a task means for the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// The process cannot go on without this task: its end stops everything.
    Stop,
    /// The task may end; an error is logged.
    Log,
}

/// Spawns tasks under one cancellation token and joins them by name.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    token: CancellationToken,
    running: Arc<Mutex<BTreeMap<u64, Running>>>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    handle: JoinHandle<()>,
}

impl Tasks {
    /// Returns the token on which every task of this owner stops.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Spawns `future` inside a span that carries `name`; a panic counts as an error.
    pub fn spawn<F, E>(&self, name: &'static str, on_exit: OnExit, future: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let token = self.token.clone();
        let span = tracing::info_span!("task", name);
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        let inner = tokio::spawn(future.instrument(span));
        let supervised = async move {
            let failure = match inner.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(panicked) => Some(panicked.to_string()),
            };
            if let Some(error) = failure {
                tracing::error!(task = name, error, "Task failed");
            }
            if on_exit == OnExit::Stop {
                token.cancel();
            }
        };
        let mut running = self.running.lock();
        running.retain(|_, task| !task.handle.is_finished());
        let key = running.last_key_value().map_or(0, |(last, _)| last + 1);
        #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
        let handle = tokio::spawn(supervised);
        running.insert(key, Running { name, handle });
    }

    /// Cancels the token and waits for every task, at most `grace_period` in all.
    ///
    /// # Errors
    /// Names the tasks that are still running when the time is up.
    pub async fn stop(&self, grace_period: Duration) -> Result<(), TasksRemain> {
        self.token.cancel();
        self.join(grace_period).await
    }

    /// Waits for every task to end by itself, at most `grace_period` in all.
    ///
    /// # Errors
    /// Names the tasks that are still running when the time is up.
    pub async fn join(&self, grace_period: Duration) -> Result<(), TasksRemain> {
        let deadline = tokio::time::Instant::now() + grace_period;
        let running = std::mem::take(&mut *self.running.lock());
        let mut remaining = Vec::new();
        for Running { name, handle } in running.into_values() {
            if tokio::time::timeout_at(deadline, handle).await.is_err() {
                remaining.push(name);
            }
        }
        if remaining.is_empty() {
            Ok(())
        } else {
            Err(TasksRemain(remaining))
        }
    }
}

/// Tasks that did not end within the grace period.
#[derive(Debug, thiserror::Error)]
#[error("these tasks did not stop in time: {}", .0.join(", "))]
pub struct TasksRemain(pub Vec<&'static str>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[tokio::test]
    async fn end_of_an_essential_task_stops_the_others() {
        let tasks = Tasks::default();
        let token = tasks.token().clone();

        tasks.spawn("essential", OnExit::Stop, async { Err::<(), _>("broken") });

        token.cancelled().await;
        tasks.stop(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn panic_in_an_essential_task_stops_the_others() {
        let tasks = Tasks::default();
        let token = tasks.token().clone();

        tasks.spawn("panics", OnExit::Stop, async {
            assert!(std::hint::black_box(false), "on purpose");
            Ok::<_, Infallible>(())
        });

        token.cancelled().await;
    }

    #[tokio::test(start_paused = true)]
    async fn task_that_does_not_stop_is_named() {
        let tasks = Tasks::default();
        tasks.spawn(
            "stubborn",
            OnExit::Log,
            std::future::pending::<Result<(), Infallible>>(),
        );

        let remaining = tasks.stop(Duration::from_secs(1)).await.unwrap_err();

        assert_eq!(remaining.0, ["stubborn"]);
    }
}
