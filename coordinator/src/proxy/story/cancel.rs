//! An operator's wish that a request end, and whoever waits for it.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use super::record::Record;

/// Whether a request is to end. One task waits for that: the one that answers the request.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    is_wanted: AtomicBool,
    waker: AtomicWaker,
}

impl Cancel {
    pub(super) fn want(&self) {
        self.is_wanted.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if !self.is_wanted() {
            self.waker.register(context.waker());
        }
        // It may have been wanted just before the waker was there.
        if self.is_wanted() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Hears of the wish, also when the request's story is in other hands.
#[derive(Debug)]
pub struct Cancelled(Arc<Record>);

impl Cancelled {
    pub(super) fn of(record: &Arc<Record>) -> Self {
        Self(Arc::clone(record))
    }

    /// Waits until an operator wants the request to end.
    pub async fn heard(&self) {
        poll_fn(|context| self.0.cancel.poll(context)).await;
    }

    /// Names the request.
    pub fn id(&self) -> &str {
        self.0.id.as_str()
    }
}
