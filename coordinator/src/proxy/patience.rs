//! A deadline that is moved with every chunk and costs a timer only when something is waited for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Runs out when nothing has happened for a while.
#[derive(Debug)]
pub struct Patience {
    deadline: Instant,
    /// Made when it is waited for, and set anew only when it rings too early.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Runs out after `limit`.
    pub fn until(now: Instant, limit: Duration) -> Self {
        Self {
            deadline: now + limit,
            timer: None,
        }
    }

    /// Starts anew.
    pub fn restart(&mut self, now: Instant, limit: Duration) {
        self.deadline = now + limit;
    }

    /// Resolves when it has run out.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(context).is_ready() {
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
