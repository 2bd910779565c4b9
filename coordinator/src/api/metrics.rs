//! Figures for Prometheus. Labels are fixed words, never text that an agent or a client sent.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as Page;

use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::state::Process;
use crate::storage::writer::StorageHealth;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

/// Shows the coordinator's figures.
#[utoipa::path(get, path = "/metrics", tag = "process",
    responses((status = 200, description = "OpenMetrics text", body = String,
               content_type = "application/openmetrics-text")))]
pub async fn get_metrics(
    State(registry): State<Registry>,
    State(proxy): State<Proxy>,
    State(process): State<Process>,
) -> Response {
    let mut page = Page::with_prefix("ollama_coordinator");
    agents(&mut page, &registry);
    storage(&mut page, &process);
    let totals = proxy.totals();
    counter(
        &mut page,
        "requests",
        "Requests relayed to agents",
        totals.relayed,
    );
    counter(
        &mut page,
        "requests_unanswered",
        "Requests no agent could answer",
        totals.unanswered,
    );
    gauge(
        &mut page,
        "in_flight",
        "Requests being served now",
        totals.in_flight,
    );

    let mut text = String::new();
    if encode(&mut text, &page).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    (
        [(header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS))],
        text,
    )
        .into_response()
}

fn agents(page: &mut Page, registry: &Registry) {
    let counts = registry.counts();
    let by_status = Family::<StatusLabel, Gauge>::default();
    let online = i64::try_from(counts.online).unwrap_or(i64::MAX);
    let offline = i64::try_from(counts.known - counts.online).unwrap_or(i64::MAX);
    by_status
        .get_or_create(&StatusLabel { status: "online" })
        .set(online);
    by_status
        .get_or_create(&StatusLabel { status: "offline" })
        .set(offline);
    page.register("agents", "Known agents by status", by_status);
    let totals = registry.totals();
    counter(page, "heartbeats", "Heartbeats received", totals.heartbeats);
    counter(
        page,
        "registrations",
        "Registrations accepted",
        totals.registrations,
    );
    let silent = "Agents taken offline for their silence";
    counter(page, "expired_leases", silent, totals.expired_leases);
}

fn storage(page: &mut Page, process: &Process) {
    let counters = process.writer.counters();
    let healthy = matches!(process.writer.health(), StorageHealth::Healthy);
    counter(
        page,
        "storage_commits",
        "Batches made durable",
        counters.commits,
    );
    counter(
        page,
        "storage_failures",
        "Batches that could not be made durable",
        counters.failed_commits,
    );
    gauge(
        page,
        "storage_healthy",
        "1 when the last commit succeeded",
        u64::from(healthy),
    );
}

fn counter(page: &mut Page, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    page.register(name, help, counter);
}

fn gauge(page: &mut Page, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    page.register(name, help, gauge);
}
