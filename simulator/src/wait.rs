//! Waiting in tests: look again and again until what is seen is what is expected, or say what was.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::panic::Location;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How long a test waits unless it knows better: long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// Looks with `observe` until `expected` holds of what it saw, and returns that.
///
/// It looks at the present state each time (level-triggered), so nothing is missed between two
/// looks. Time may be paused.
///
/// # Panics
/// After `within`, with the caller's place, `what`, and what was seen last.
#[track_caller]
pub fn wait_for<T, Fut>(
    what: impl Display,
    within: Duration,
    mut observe: impl FnMut() -> Fut,
    expected: impl Fn(&T) -> bool,
) -> impl Future<Output = T>
where
    T: Debug,
    Fut: Future<Output = T>,
{
    let caller = Location::caller();
    async move {
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        let mut last_seen = None;
        while let Ok(seen) = timeout_at(deadline, observe()).await {
            if expected(&seen) {
                return seen;
            }
            last_seen = Some(seen);
            if Instant::now() >= deadline {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        give_up(caller, &what, within, last_seen.as_ref())
    }
}

#[expect(clippy::panic, reason = "a test that waits in vain has failed")]
fn give_up<T: Debug>(
    caller: &Location<'_>,
    what: &impl Display,
    within: Duration,
    last_seen: Option<&T>,
) -> ! {
    match last_seen {
        Some(seen) => panic!("{caller}: {what}: not within {within:?}; last seen: {seen:?}"),
        None => panic!("{caller}: {what}: not within {within:?}; nothing could be seen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn first_observation_that_fits_is_returned() {
        let looks = AtomicU32::new(0);

        let seen = wait_for(
            "three looks",
            PATIENCE,
            async || looks.fetch_add(1, Ordering::Relaxed) + 1,
            |seen| *seen >= 3,
        )
        .await;

        assert_eq!(seen, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_vain_shows_place_expectation_and_last_observation() {
        let looks = Arc::new(AtomicU32::new(0));
        let waiting = {
            let looks = Arc::clone(&looks);
            async move {
                let observe = async || {
                    looks.fetch_add(1, Ordering::Relaxed);
                    "still offline"
                };
                wait_for("agent online", PATIENCE, observe, |seen| *seen == "online").await;
            }
        };

        let message = message_of_panic(waiting).await;

        assert!(message.contains("wait.rs:"), "{message}");
        assert!(
            message.contains("agent online: not within 10s"),
            "{message}"
        );
        assert!(
            message.contains(r#"last seen: "still offline""#),
            "{message}"
        );
        assert!(looks.load(Ordering::Relaxed) > 100);
    }

    #[tokio::test(start_paused = true)]
    async fn observation_that_never_ends_does_not_hang_the_test() {
        let waiting = wait_for("an answer", PATIENCE, std::future::pending::<u32>, |_| true);

        let message = message_of_panic(async {
            waiting.await;
        })
        .await;

        assert!(message.contains("nothing could be seen"), "{message}");
    }

    async fn message_of_panic(future: impl Future<Output = ()> + Send + 'static) -> String {
        let mut alone = tokio::task::JoinSet::new();
        alone.spawn(future);
        let panicked = alone.join_next().await.unwrap().unwrap_err().into_panic();
        *panicked.downcast::<String>().unwrap()
    }
}
