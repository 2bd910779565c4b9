//! The task that ends leases, and that notices when it was itself away.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Registry;

/// How often leases are looked at.
const TICK: Duration = Duration::from_millis(200);
/// A tick this late means that the process was paused or starved and could hear nobody.
const PAUSE: Duration = Duration::from_secs(1);

/// Sweeps the registry until the token is cancelled.
pub async fn run(registry: Registry, token: CancellationToken) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        let lag = now.saturating_duration_since(last).saturating_sub(TICK);
        last = now;
        if lag >= PAUSE {
            let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(lag_ms, "Coordinator was paused, every lease starts anew");
            registry.restart_leases(lag);
        }
        registry.sweep();
    }
}
