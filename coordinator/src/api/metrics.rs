//! Figures for Prometheus. A label is a fixed word, or a model or an agent that the registry knows,
//! and there are only so many of those.

use std::fmt;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ollama_coordinator_common::id::AgentId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry as Page;

use crate::proxy::Proxy;
use crate::proxy::story::Storybook;
use crate::proxy::story::figures::{Figures, ModelFigures, OTHER};
use crate::registry::Registry;
use crate::state::Process;
use crate::storage::writer::StorageHealth;

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: String,
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
    let tunnels = proxy.tunnels().count() as u64;
    gauge(&mut page, "tunnels", "Tunnels that are up", tunnels);
    gauge(
        &mut page,
        "in_flight",
        "Requests being served now",
        proxy.balancer().totals().in_flight as u64,
    );
    counter(
        &mut page,
        "traces_dropped",
        "Requests whose traces did not reach the collector",
        proxy.storybook().untraced(),
    );
    page.register_collector(Box::new(Requests(proxy.storybook().clone())));

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
    let without = Family::<ReasonLabel, Gauge>::default();
    for (reason, agents) in registry.unroutable() {
        let agents = i64::try_from(agents).unwrap_or(i64::MAX);
        without.get_or_create(&ReasonLabel { reason }).set(agents);
    }
    let help = "Agents that get no requests by the first reason";
    page.register("agents_unroutable", help, without);
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
    let kept = "Agents kept online by their runtime's answer though their lease ran out";
    counter(page, "missing_heartbeats", kept, totals.missing_heartbeats);
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

/// The figures of requests, which are read where they are counted.
#[derive(Debug)]
struct Requests(Storybook);

impl Collector for Requests {
    fn encode(&self, mut page: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = self.0.figures();
        requests(&mut page, figures)?;
        times(&mut page, figures)?;
        attempts(&mut page, figures)?;
        ejections(&mut page, self.0.ejections())?;
        let lengths = self.0.queue_lengths();
        let lengths = lengths.into_iter();
        let lengths = lengths.map(|(model, length)| ([("model", model)], ConstGauge::new(length)));
        family(&mut page, "queued", "Requests waiting now", lengths)
    }
}

fn requests(page: &mut DescriptorEncoder<'_>, figures: &Figures) -> fmt::Result {
    let (mut requests, mut tokens) = (Vec::new(), Vec::new());
    for model in figures.models() {
        let label = &model.label;
        for (agent, pair) in model.pairs() {
            let agent = agent_label(agent);
            for (protocol, status, count) in pair.requests().filter(|(.., count)| *count > 0) {
                let labels = [
                    ("protocol", protocol.as_str().to_owned()),
                    ("model", label.to_string()),
                    ("agent", agent.clone()),
                    ("status", status.to_owned()),
                ];
                requests.push((labels, ConstCounter::new(count)));
            }
            for (kind, count) in pair.tokens().into_iter().filter(|(_, count)| *count > 0) {
                let labels = [
                    ("kind", kind.to_owned()),
                    ("model", label.to_string()),
                    ("agent", agent.clone()),
                ];
                tokens.push((labels, ConstCounter::new(count)));
            }
        }
    }
    family(page, "requests", "Requests relayed to agents", requests)?;
    let help = "Requests no agent could answer";
    let refusals = figures.refusals().into_iter();
    let refusals = refusals.map(|(reason, count)| ([("reason", reason)], ConstCounter::new(count)));
    family(page, "requests_unanswered", help, refusals)?;
    let help = "Tokens as the runtimes counted them";
    family(page, "tokens", help, tokens)
}

fn times(page: &mut DescriptorEncoder<'_>, figures: &Figures) -> fmt::Result {
    let models = figures.models();
    let by_model = |histogram: for<'a> fn(&'a ModelFigures) -> &'a Histogram| {
        let shown = models.iter().filter(|model| !model.pairs().is_empty());
        let labels = |model: &ModelFigures| [("model", model.label.to_string())];
        shown.map(move |model| (labels(model), histogram(model).clone()))
    };
    let help = "From the arrival of a request to the end of the answer";
    let duration = by_model(|model| &model.duration);
    family(page, "request_duration_seconds", help, duration)?;
    let help = "From the arrival of a request to the first byte of the answer";
    let first_byte = by_model(|model| &model.first_byte);
    family(page, "first_byte_seconds", help, first_byte)?;
    let help = "Time in the queue of requests that were answered";
    let queued = by_model(|model| &model.queued);
    family(page, "queue_wait_seconds", help, queued)
}

fn attempts(page: &mut DescriptorEncoder<'_>, figures: &Figures) -> fmt::Result {
    let (mut attempts, mut retries) = (Vec::new(), Vec::new());
    for (agent, figures) in figures.agents() {
        let agent = agent_label(agent);
        for (outcome, made, again) in figures.attempts() {
            let labels = [("agent", agent.clone()), ("outcome", outcome.to_owned())];
            if made > 0 {
                attempts.push((labels.clone(), ConstCounter::new(made)));
            }
            if again > 0 {
                retries.push((labels, ConstCounter::new(again)));
            }
        }
    }
    let help = "Tries of requests at agents that have ended";
    family(page, "attempts", help, attempts)?;
    let help = "Those of them that were not the first of their request";
    family(page, "retries", help, retries)
}

/// Shows how often each agent was ejected.
fn ejections(
    page: &mut DescriptorEncoder<'_>,
    by_agent: impl IntoIterator<Item = (AgentId, u64)>,
) -> fmt::Result {
    let rows = by_agent.into_iter();
    let rows =
        rows.map(|(agent, count)| ([("agent", agent.to_string())], ConstCounter::new(count)));
    let help = "Times that an agent got no requests for a while because it failed";
    family(page, "ejections", help, rows)
}

fn agent_label(agent: Option<AgentId>) -> String {
    agent.map_or_else(|| OTHER.to_owned(), |agent| agent.to_string())
}

/// Writes one metric with all its labels.
fn family<L: EncodeLabelSet, M: EncodeMetric>(
    page: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    rows: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut rows = rows.into_iter().peekable();
    let Some((_, first)) = rows.peek() else {
        return Ok(());
    };
    let help = format!("{help}.");
    let mut metric = page.encode_descriptor(name, &help, None, first.metric_type())?;
    for (labels, row) in rows {
        row.encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}
