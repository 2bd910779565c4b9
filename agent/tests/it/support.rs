//! What the tests share: fakes on port 0, an agent with short delays, and waiting.

pub(crate) mod agent;
pub(crate) mod coordinator;
pub(crate) mod panel;
pub(crate) mod process;
pub(crate) mod runtime;
pub(crate) mod server;
pub(crate) mod tunnel;

use std::fmt::Debug;
use std::time::Duration;

use tokio::sync::watch;

/// Longer than anything takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `value` is as wanted, now or later; tells what it was when it never was.
pub(crate) async fn wait_for<T: Clone + Debug>(
    value: &mut watch::Receiver<T>,
    condition: impl FnMut(&T) -> bool,
) -> T {
    let seen = tokio::time::timeout(DEADLINE, value.wait_for(condition)).await;
    let seen = seen.map(|seen| seen.expect("the sender lives").clone());
    seen.unwrap_or_else(|_elapsed| panic!("it never became so; last seen: {:#?}", value.borrow()))
}
