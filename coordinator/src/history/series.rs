//! Which numbers are remembered, and in which order. Pure.

use ollama_coordinator_common::protocol::event::FleetFigures;

use crate::registry::snapshot::AgentSnapshot;

/// The numbers of one moment; not a number: unknown.
pub(super) type Row = [f32; WIDTH];

const WIDTH: usize = 7;
/// A moment of which nothing is known.
pub(super) const GAP: Row = [f32::NAN; WIDTH];

pub(super) const OF_AGENT: [&str; WIDTH] = [
    "in_flight",
    "tokens_per_second",
    "cpu_percent",
    "memory_used_bytes",
    "gpu_percent",
    "gpu_memory_used_bytes",
    "gpu_temperature_celsius",
];
/// Where the tokens stand, which are known only from one moment to the next.
pub(super) const TOKENS: usize = 1;

pub(super) const OF_FLEET: [&str; WIDTH] = [
    "in_flight",
    "tokens_per_second",
    "queued",
    "requests_per_minute",
    "failures_per_minute",
    "routable_agents",
    "first_token_p95_ms",
];

#[expect(clippy::cast_precision_loss, reason = "numbers that are drawn")]
pub(super) fn fleet(figures: &FleetFigures, routable: usize) -> Row {
    [
        figures.in_flight as f32,
        figures.tokens_per_second,
        figures.queued as f32,
        figures.requests_per_minute,
        figures.failures_per_minute,
        routable as f32,
        figures.first_token_p95_ms.unwrap_or(f32::NAN),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "numbers that are drawn")]
pub(super) fn agent(agent: &AgentSnapshot) -> Row {
    let metrics = agent.metrics.as_deref();
    let known = |value: Option<f32>| value.unwrap_or(f32::NAN);
    let bytes = |value: Option<u64>| value.map_or(f32::NAN, |bytes| bytes as f32);
    [
        agent.in_flight as f32,
        f32::NAN,
        known(metrics.and_then(|it| it.cpu_percent)),
        bytes(metrics.and_then(|it| it.memory_used_bytes)),
        known(metrics.and_then(|it| it.gpu_percent)),
        bytes(metrics.and_then(|it| it.gpu_memory_used_bytes)),
        known(metrics.and_then(|it| it.gpu_temperature_celsius)),
    ]
}
