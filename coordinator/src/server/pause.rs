//! How long a connection has asked for nothing: one timer for its whole life, however many requests
//! it brings.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::ServerLimits;
use crate::proxy::body::{BoxError, ProxyBody};

/// Since when a connection waits for the head of a request.
#[derive(Debug)]
pub(super) struct Pause(Mutex<Waiting>);

#[derive(Debug, Clone, Copy)]
enum Waiting {
    /// For its first request.
    First(Instant),
    /// For another one.
    Next(Instant),
    /// It is being answered.
    Nothing,
}

/// A request that is being answered, until it is dropped.
pub(super) struct InUse(Arc<Pause>);

/// The body of an answer; with it goes the request.
pub(super) struct InUseBody {
    pub(super) body: ProxyBody,
    pub(super) _in_use: InUse,
}

impl Pause {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Waiting::First(Instant::now()))))
    }

    /// Resolves when the head of a request has been waited for for too long.
    pub(super) async fn outlasts(&self, limits: ServerLimits) {
        loop {
            let waiting = *self.0.lock();
            let end = match waiting {
                Waiting::First(since) => since + limits.head_timeout,
                Waiting::Next(since) => since + limits.idle_timeout,
                Waiting::Nothing => {
                    // What waits from now on does so for longer than this.
                    sleep(limits.idle_timeout).await;
                    continue;
                }
            };
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

impl InUse {
    pub(super) fn new(pause: Arc<Pause>) -> Self {
        *pause.0.lock() = Waiting::Nothing;
        Self(pause)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        *self.0.0.lock() = Waiting::Next(Instant::now());
    }
}

impl Body for InUseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
