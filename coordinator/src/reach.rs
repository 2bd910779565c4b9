//! Dials agents back: nothing is routed to an address before a runtime has answered there.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use ollama_coordinator_common::http::{BaseUrl, HttpClient, HttpTimeouts};
use ollama_coordinator_common::probe;
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeReport};
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::registry::table::ReachCheck;

/// How many addresses are tried at once.
const CONCURRENT: usize = 64;
/// How often the line is looked at without being told.
const TICK: Duration = Duration::from_millis(500);
const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(5),
};

/// Tries addresses whose turn it is until the token is cancelled.
pub async fn run(registry: Registry, token: CancellationToken) -> Result<(), Infallible> {
    loop {
        let checks = registry.take_reach_checks(CONCURRENT);
        if checks.is_empty() {
            tokio::select! {
                () = token.cancelled() => return Ok(()),
                () = registry.reach_wanted() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            continue;
        }
        let tried = futures_util::stream::iter(checks)
            .map(|check| async move { (check, look(check).await) })
            .buffer_unordered(CONCURRENT)
            .for_each(|(check, found)| {
                registry.record_reach(check, found);
                std::future::ready(())
            });
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            () = tried => {}
        }
    }
}

async fn look(check: ReachCheck) -> Option<RuntimeReport> {
    let mut client = HttpClient::new(BaseUrl::from_addr(check.endpoint), TIMEOUTS);
    if check.wants_report {
        let report = probe::probe(&mut client).await;
        return report.inspect_err(|error| log(check, error)).ok();
    }
    let path = match check.kind {
        RuntimeKind::Ollama => "/api/version",
        RuntimeKind::Openai => "/v1/models",
    };
    let answer = client
        .get(path)
        .await
        .inspect_err(|error| log(check, error))
        .ok()?;
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&answer.body).is_ok();
    (answer.status.is_success() && is_json).then(RuntimeReport::default)
}

fn log(check: ReachCheck, error: &(dyn std::error::Error + 'static)) {
    tracing::debug!(agent.id = %check.id, endpoint = %check.endpoint, error, "Address check failed");
}
