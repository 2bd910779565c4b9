//! Dials agents back: nothing is routed to an address before a runtime has answered there.

mod line;

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::http::{HttpClient, HttpTimeouts};
use ollama_coordinator_common::probe::{self, ProbeError};
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use tokio_util::sync::CancellationToken;

use crate::registry::Registry;
use crate::registry::table::ReachCheck;
use line::Line;

/// How often the registry is asked for checks without having told of any.
const TICK: Duration = Duration::from_millis(500);
/// How long one check may take in all.
const DEADLINE: Duration = Duration::from_secs(6);
const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(2),
    answer: Duration::from_secs(5),
};

/// Tries addresses whose turn it is until the token is cancelled.
pub async fn run(registry: Registry, token: CancellationToken) -> Result<(), Infallible> {
    let mut line = Line::default();
    let mut running = FuturesUnordered::new();
    loop {
        for check in registry.take_reach_checks(usize::MAX) {
            line.push(check);
        }
        running.extend(std::iter::from_fn(|| line.start_next()).map(look_in_time));
        tokio::select! {
            () = token.cancelled() => return Ok(()),
            Some((check, found)) = running.next() => {
                line.finished(check.endpoint.ip());
                registry.record_reach(check, found);
            }
            () = registry.reach_wanted() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

async fn look_in_time(check: ReachCheck) -> (ReachCheck, Option<RuntimeReport>) {
    let found = match tokio::time::timeout(DEADLINE, look(check)).await {
        Ok(Ok(report)) => Some(report),
        Ok(Err(error)) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(agent.id = %check.id, endpoint = %check.endpoint, error, "Address check failed");
            None
        }
        Err(_elapsed) => {
            tracing::debug!(agent.id = %check.id, endpoint = %check.endpoint, "Address check took too long");
            None
        }
    };
    (check, found)
}

/// An agent process reports on its runtime itself; where there is none, the report comes from here.
async fn look(check: ReachCheck) -> Result<RuntimeReport, ProbeError> {
    let mut client = HttpClient::new(BaseUrl::from_addr(check.endpoint), TIMEOUTS)
        .with_answer_limit(probe::ANSWER_LIMIT);
    if check.wants_report {
        return probe::probe(&mut client).await;
    }
    probe::verify(&mut client, check.kind).await?;
    Ok(RuntimeReport::default())
}
