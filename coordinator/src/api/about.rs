//! What this coordinator is and where others reach it.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::id::InstanceId;
use ollama_coordinator_common::version;
use serde::Serialize;
use utoipa::ToSchema;

use crate::banner::addresses;
use crate::history::{History, Span};
use crate::registry::Registry;
use crate::state::Process;

/// This coordinator.
#[derive(Debug, Serialize, ToSchema)]
pub struct About {
    /// Its version.
    #[schema(value_type = String)]
    version: &'static str,
    /// The oldest agent that it understands.
    oldest_agent: String,
    /// This run of the process.
    instance_id: InstanceId,
    /// When it started.
    started_at: DateTime<Utc>,
    /// The URLs under which other machines may reach it; none when it listens on loopback only.
    addresses: Vec<String>,
    /// How finely the load of single agents is remembered: the last minutes, then the last day.
    /// Empty when there are too many of them.
    history: Vec<HistorySpan>,
}

/// How finely something is remembered, and for how long.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistorySpan {
    /// From one moment to the next.
    step_ms: u64,
    /// How long.
    length_ms: u64,
}

impl From<Span> for HistorySpan {
    fn from(span: Span) -> Self {
        Self {
            step_ms: millis(span.step),
            length_ms: millis(span.length),
        }
    }
}

/// Says what this coordinator is and where others reach it.
#[utoipa::path(get, path = "/api/about", tag = "process",
    responses((status = 200, description = "This coordinator", body = About)))]
pub async fn get_about(
    State(registry): State<Registry>,
    State(history): State<History>,
    State(process): State<Process>,
) -> Json<About> {
    let spans = history.tier().map(|tier| [tier.fine, tier.coarse]);
    let history = spans.into_iter().flatten().map(HistorySpan::from);
    Json(About {
        version: env!("CARGO_PKG_VERSION"),
        oldest_agent: version::OLDEST_AGENT.to_string(),
        instance_id: registry.instance_id(),
        started_at: process.started_at,
        addresses: for_other_machines(process.local),
        history: history.collect(),
    })
}

fn for_other_machines(local: SocketAddr) -> Vec<String> {
    let ips = match local.ip() {
        ip if ip.is_loopback() => Vec::new(),
        ip if ip.is_unspecified() => addresses::for_other_machines(),
        ip => vec![ip],
    };
    let urls = ips.into_iter();
    urls.map(|ip| BaseUrl::from_addr(SocketAddr::new(ip, local.port())).to_string())
        .collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
