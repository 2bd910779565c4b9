//! The task that saves what need not be durable at once.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::Registry;
use super::table::Unsaved;
use crate::storage::writer::CommitError;

/// How often the times last seen are saved.
const INTERVAL: Duration = Duration::from_mins(1);

/// Saves until the token is cancelled; ends with an error when storage has ended, which stops the
/// process.
pub async fn run(registry: Registry, token: CancellationToken) -> Result<(), CommitError> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let which = tokio::select! {
            () = token.cancelled() => return Ok(()),
            _ = ticks.tick() => Unsaved::HeardOf,
            () = registry.save_wanted() => Unsaved::Changed,
        };
        match registry.save(which).await {
            Err(CommitError::Stopped) => return Err(CommitError::Stopped),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "Saving the registry failed");
            }
            Ok(()) => {}
        }
    }
}
