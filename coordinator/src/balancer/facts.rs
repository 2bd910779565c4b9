//! What the balancer has to know of an agent, taken from what the registry knows. Pure.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{LoadedModel, Model, RuntimeKind};
use ollama_coordinator_common::protocol::system::{Metrics, SystemInfo};

use super::choice::Fits;
use crate::registry::agent::Link;
use crate::registry::routing::RoutingFacts;
use crate::storage::agent::StoredAgent;

/// Ollama's own default was four for years; above its figure, whatever it is, it queues by itself.
const OLLAMA_CAPACITY: u32 = 4;
/// Servers that batch, such as vLLM, take many and do not tell how many.
const OPENAI_CAPACITY: u32 = 16;

/// An agent as the balancer sees it.
#[derive(Debug, Clone, Copy)]
pub struct AgentFacts<'a> {
    /// Who it is.
    pub id: AgentId,
    /// What to call it.
    pub name: &'a str,
    /// How to reach its runtime.
    pub link: Link,
    /// Whether it speaks Ollama's own API.
    pub speaks_ollama: bool,
    /// Where to show how many requests it is serving.
    pub in_flight: &'a Arc<AtomicU32>,
    /// Whether it may get requests, as far as the registry is concerned.
    pub is_routable: bool,
    /// Whether its heartbeats are missing.
    pub is_suspect: bool,
    /// How many requests it serves at once.
    pub capacity: u32,
    /// Bytes of GPU memory that nothing takes, when known.
    pub free_memory: Option<u64>,
    /// What it can serve.
    pub models: &'a [Model],
    /// What it has in memory.
    pub loaded_models: &'a [LoadedModel],
    /// Changes each time it registers.
    pub registrations: u64,
}

impl<'a> AgentFacts<'a> {
    /// Takes from the registry's facts what matters.
    pub fn of(facts: &'a RoutingFacts) -> Self {
        let stored = &*facts.stored;
        Self {
            id: stored.id,
            name: stored.name(),
            link: facts.link,
            speaks_ollama: stored.runtime.kind == RuntimeKind::Ollama,
            in_flight: &facts.in_flight,
            is_routable: facts.is_routable,
            is_suspect: facts.is_suspect,
            capacity: capacity(stored),
            free_memory: stored.system_info.as_ref().and_then(|system| {
                free_memory(
                    system,
                    &stored.runtime.loaded_models,
                    facts.metrics.as_deref(),
                )
            }),
            models: &stored.runtime.models,
            loaded_models: &stored.runtime.loaded_models,
            registrations: facts.registrations,
        }
    }

    /// Returns whether it has a model in memory. Servers that do not tell have what they serve.
    pub(super) fn has_loaded(&self, model: &str) -> bool {
        let says_nothing = !self.speaks_ollama && self.loaded_models.is_empty();
        says_nothing || self.loaded_models.iter().any(|loaded| loaded.name == model)
    }
}

/// The operator's figure, else the runtime's, else a guess by its kind.
fn capacity(stored: &StoredAgent) -> u32 {
    let guess = match stored.runtime.kind {
        RuntimeKind::Ollama => OLLAMA_CAPACITY,
        RuntimeKind::Openai => OPENAI_CAPACITY,
    };
    stored.known_capacity().map_or(guess, NonZeroU32::get)
}

/// Counts what the models in memory take and what is measured, whichever is more: the measured
/// figure includes other programs and is older.
fn free_memory(
    system: &SystemInfo,
    loaded: &[LoadedModel],
    metrics: Option<&Metrics>,
) -> Option<u64> {
    let gpus = system.gpus.as_deref()?;
    let total: u64 = gpus
        .iter()
        .map(|gpu| gpu.memory_bytes)
        .sum::<Option<u64>>()?;
    let by_models: u64 = loaded.iter().filter_map(|model| model.size_vram).sum();
    let measured = metrics.and_then(|metrics| metrics.gpu_memory_used_bytes);
    Some(total.saturating_sub(by_models.max(measured.unwrap_or(0))))
}

/// Compares a model's size with free memory.
pub(super) fn fits(size: Option<u64>, free_memory: Option<u64>) -> Fits {
    match (size, free_memory) {
        (Some(size), Some(free)) if size <= free => Fits::Yes,
        (Some(_), Some(_)) => Fits::No,
        (None, _) | (_, None) => Fits::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ollama_coordinator_common::protocol::system::Gpu;
    use rstest::rstest;

    const GIB: u64 = 1 << 30;

    fn gpu(gib: Option<u64>) -> Gpu {
        Gpu {
            name: "gpu".to_owned(),
            memory_bytes: gib.map(|gib| gib * GIB),
            driver: None,
        }
    }

    #[rstest]
    #[case::silent_system(None, 0, None)]
    #[case::no_gpu(Some(vec![]), 0, Some(0))]
    #[case::two_gpus(Some(vec![gpu(Some(8)), gpu(Some(16))]), 0, Some(24))]
    #[case::loaded(Some(vec![gpu(Some(8))]), 5, Some(3))]
    #[case::more_than_there_is(Some(vec![gpu(Some(8))]), 9, Some(0))]
    #[case::one_does_not_tell(Some(vec![gpu(Some(8)), gpu(None)]), 0, None)]
    fn free_memory_is_what_nothing_takes(
        #[case] gpus: Option<Vec<Gpu>>,
        #[case] loaded_gib: u64,
        #[case] free_gib: Option<u64>,
    ) {
        let system = SystemInfo {
            gpus,
            ..SystemInfo::default()
        };
        let loaded = [LoadedModel {
            name: "a:latest".to_owned(),
            size: None,
            size_vram: Some(loaded_gib * GIB),
            expires_at: None,
            context_length: None,
        }];
        let measured = |gib: u64| Metrics {
            gpu_memory_used_bytes: Some(gib * GIB),
            ..Metrics::default()
        };
        let free_gib = free_gib.map(|gib| gib * GIB);

        assert_eq!(free_memory(&system, &loaded, None), free_gib);
        let by_metrics = free_memory(&system, &[], Some(&measured(loaded_gib)));
        assert_eq!(by_metrics, free_gib);
    }

    #[rstest]
    #[case(Some(4), Some(4), Fits::Yes)]
    #[case(Some(5), Some(4), Fits::No)]
    #[case(None, Some(4), Fits::Unknown)]
    #[case(Some(5), None, Fits::Unknown)]
    fn what_is_not_known_is_neither_yes_nor_no(
        #[case] size: Option<u64>,
        #[case] free: Option<u64>,
        #[case] expected: Fits,
    ) {
        assert_eq!(fits(size, free), expected);
    }
}
