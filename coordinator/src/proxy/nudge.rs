//! A waker for something that is driven by the one who waits for it.
//!
//! A request and the connection that it goes over are polled together, and each wakes the other
//! with every step. Those wakes come while both are being polled, so there is nobody to wake: they
//! only ask for another round. Passed on, each would have the whole task polled once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// More rounds than this in one go, and the task is woken instead, so that others get their turn.
const MOST_ROUNDS: usize = 8;

/// Polls what is polled together, and wakes the task only from outside.
#[derive(Debug)]
pub(super) struct Nudge {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    task: AtomicWaker,
    is_polled: AtomicBool,
    is_nudged: AtomicBool,
}

impl Default for Nudge {
    fn default() -> Self {
        let shared = Arc::<Shared>::default();
        let waker = Waker::from(Arc::clone(&shared));
        Self { shared, waker }
    }
}

impl Nudge {
    /// Polls until it is ready or nobody has asked for another round.
    pub(super) fn poll<T>(
        &self,
        context: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let shared = &*self.shared;
        shared.task.register(context.waker());
        let mut own = Context::from_waker(&self.waker);
        for _ in 0..MOST_ROUNDS {
            shared.is_nudged.store(false, Ordering::SeqCst);
            shared.is_polled.store(true, Ordering::SeqCst);
            let polled = poll(&mut own);
            shared.is_polled.store(false, Ordering::SeqCst);
            // A wake that came too late to see that the poll is over is seen here.
            if polled.is_ready() || !shared.is_nudged.load(Ordering::SeqCst) {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_nudged.store(true, Ordering::SeqCst);
        if !self.is_polled.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts how often a task is woken.
    #[derive(Debug, Default)]
    struct Task(std::sync::atomic::AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn polled(nudge: &Nudge, poll: impl FnMut(&mut Context<'_>) -> Poll<u8>) -> (Poll<u8>, usize) {
        let task = Arc::<Task>::default();
        let waker = Waker::from(Arc::clone(&task));
        let polled = nudge.poll(&mut Context::from_waker(&waker), poll);
        (polled, task.0.load(Ordering::SeqCst))
    }

    #[test]
    fn wake_during_the_poll_asks_for_another_round_and_wakes_nobody() {
        let nudge = Nudge::default();
        let mut rounds = 0;

        let (polled, wakes) = polled(&nudge, |context| {
            rounds += 1;
            context.waker().wake_by_ref();
            if rounds == 3 {
                Poll::Ready(7)
            } else {
                Poll::Pending
            }
        });

        assert_eq!((polled, wakes, rounds), (Poll::Ready(7), 0, 3));
    }

    #[test]
    fn wake_after_the_poll_wakes_the_task() {
        let nudge = Nudge::default();
        let task = Arc::<Task>::default();
        let waker = Waker::from(Arc::clone(&task));
        let mut kept = None;

        let polled = nudge.poll(&mut Context::from_waker(&waker), |context| {
            kept = Some(context.waker().clone());
            Poll::<u8>::Pending
        });
        kept.unwrap().wake();

        assert_eq!((polled, task.0.load(Ordering::SeqCst)), (Poll::Pending, 1));
    }

    #[test]
    fn what_never_rests_lets_others_have_their_turn() {
        let nudge = Nudge::default();

        let (polled, wakes) = polled(&nudge, |context| {
            context.waker().wake_by_ref();
            Poll::Pending
        });

        assert_eq!((polled, wakes), (Poll::Pending, 1));
    }
}
