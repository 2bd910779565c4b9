//! Many agents that register at the same moment, and nothing else.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::agent::Cast;
use super::roster::{AgentCall, CallOutcome};
use super::stats::LatencySummary;
use super::{FleetError, FleetOptions};

/// What came of a storm of registrations.
#[derive(Debug, Clone, Serialize)]
pub struct StormReport {
    /// Agents whose registration was answered.
    pub acknowledged: Vec<AgentId>,
    /// Registrations that failed or were refused; none is tried twice.
    pub failed: usize,
    /// From sending a registration to its answer.
    pub latency: LatencySummary,
    /// From the first registration to the last answer.
    #[serde(skip)]
    pub elapsed: Duration,
}

/// Registers every agent of `options` once, with `concurrency` of them at a time.
///
/// # Errors
/// An address is not a loopback address.
pub async fn register_storm(
    options: &FleetOptions,
    concurrency: NonZeroUsize,
) -> Result<StormReport, FleetError> {
    options.check()?;
    let cast = Arc::new(Cast::new(options));
    let next = Arc::new(AtomicUsize::new(0));
    let agents = options.agents;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.get().min(agents) {
        let (cast, next) = (Arc::clone(&cast), Arc::clone(&next));
        workers.spawn(async move { register_in_turn(&cast, &next, agents).await });
    }
    let registered: Vec<(usize, Duration)> = workers.join_all().await.concat();
    let latencies = registered.iter().map(|(_, latency)| *latency).collect();
    Ok(StormReport {
        acknowledged: registered
            .iter()
            .map(|(agent, _)| cast.id(*agent))
            .collect(),
        failed: agents - registered.len(),
        latency: LatencySummary::of(latencies),
        elapsed: started.elapsed(),
    })
}

async fn register_in_turn(
    cast: &Cast,
    next: &AtomicUsize,
    agents: usize,
) -> Vec<(usize, Duration)> {
    let mut client = cast.client();
    let mut registered = Vec::new();
    loop {
        let agent = next.fetch_add(1, Ordering::Relaxed);
        if agent >= agents {
            return registered;
        }
        let sent = Instant::now();
        let call = AgentCall::Register { last_epoch: 0 };
        match cast.perform(&mut client, agent, call).await {
            CallOutcome::Granted { .. } => registered.push((agent, sent.elapsed())),
            CallOutcome::Unknown | CallOutcome::Failed { .. } | CallOutcome::Left => {}
        }
    }
}
