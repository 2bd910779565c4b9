//! A client's body on its way to a machine: it may take as long as it likes while it moves.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

/// When something last moved.
#[derive(Debug, Clone)]
pub struct Moved {
    since: Instant,
    millis: Arc<AtomicU64>,
}

/// A body that tells when it moves.
#[derive(Debug)]
pub struct Upload {
    body: Incoming,
    moved: Moved,
}

impl Moved {
    /// Something moves now.
    pub fn now() -> Self {
        Self {
            since: Instant::now(),
            millis: Arc::default(),
        }
    }

    /// Resolves when nothing has moved for `patience`.
    pub async fn stalled(&self, patience: Duration) {
        loop {
            let deadline = self.last() + patience;
            tokio::time::sleep_until(deadline).await;
            if self.last() + patience <= deadline {
                return;
            }
        }
    }

    fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    fn touch(&self) {
        let millis = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }
}

impl Upload {
    /// Watches a body.
    pub fn new(body: Incoming, moved: Moved) -> Self {
        Self { body, moved }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.moved.touch();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
