//! A future that hardly ever goes on, beside one that is polled with every byte.
//!
//! To look at a token or a timer takes locks. This one is looked at only when it has called.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls a future only when it has asked for it.
pub(crate) struct Seldom<F> {
    future: Pin<Box<F>>,
    call: Arc<Call>,
    waker: Waker,
    /// Who polled last.
    task: Waker,
}

#[derive(Debug)]
struct Call {
    has_called: AtomicBool,
    task: AtomicWaker,
}

impl<F> Seldom<F> {
    pub(crate) fn new(future: F) -> Self {
        let call = Arc::new(Call {
            has_called: AtomicBool::new(true),
            task: AtomicWaker::new(),
        });
        Self {
            future: Box::pin(future),
            waker: Waker::from(Arc::clone(&call)),
            call,
            task: Waker::noop().clone(),
        }
    }
}

impl<F: Future> Future for Seldom<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.task.will_wake(context.waker()) {
            this.task.clone_from(context.waker());
            this.call.task.register(&this.task);
        }
        if !this.call.has_called.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // A call takes the waker with it; the next one needs it again.
        this.call.task.register(&this.task);
        // Cleared before the look: what calls during it is heard by the next.
        this.call.has_called.swap(false, Ordering::AcqRel);
        let mut own = Context::from_waker(&this.waker);
        this.future.as_mut().poll(&mut own)
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_called.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::StreamExt as _;
    use futures_util::stream::FuturesUnordered;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn future_is_polled_first_and_then_only_when_it_has_called() {
        let polls = AtomicUsize::new(0);
        let (sender, mut receiver) = oneshot::channel();
        let mut seldom = Seldom::new(std::future::poll_fn(|context| {
            polls.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut receiver).poll(context)
        }));

        for _ in 0..3 {
            assert!(futures_util::poll!(&mut seldom).is_pending());
        }
        assert_eq!(polls.load(Ordering::SeqCst), 1);
        sender.send(7).unwrap();

        assert_eq!(seldom.await, Ok(7));
        assert_eq!(polls.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn task_is_woken_by_every_call_and_not_only_by_the_first() {
        let step = std::time::Duration::from_secs(1);
        let mut seldom = Seldom::new(async {
            for _ in 0..3 {
                tokio::time::sleep(step).await;
            }
        });

        let ended = tokio::time::timeout(10 * step, &mut seldom).await;

        assert_eq!(ended, Ok(()));
    }

    #[tokio::test]
    async fn whoever_polled_last_is_woken() {
        let (sender, receiver) = oneshot::channel();
        let mut seldom = Seldom::new(receiver);
        assert!(futures_util::poll!(&mut seldom).is_pending());

        // What is in it is polled with a waker of its own.
        let mut others = FuturesUnordered::from_iter([seldom]);
        let send = async {
            tokio::task::yield_now().await;
            sender.send(7).unwrap();
        };
        let (ended, ()) = tokio::join!(others.next(), send);

        assert_eq!(ended, Some(Ok(7)));
    }
}
