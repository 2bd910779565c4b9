//! The routable agents by model, made once per change of the registry.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ollama_coordinator_common::protocol::runtime::{Model, RuntimeKind};

use super::agent::{Candidate, Link};
use super::snapshot::full_model_name;
use super::table::AgentTable;

/// Who can serve what, at one revision of the registry.
#[derive(Debug, Default)]
pub struct Candidates {
    revision: u64,
    by_model: HashMap<String, Vec<Candidate>>,
    models: BTreeMap<String, Model>,
    versions: BTreeMap<String, usize>,
}

impl Candidates {
    /// Collects the routable agents of `table`.
    pub(super) fn of(table: &AgentTable) -> Self {
        let mut candidates = Self {
            revision: table.revision(),
            ..Self::default()
        };
        for (stored, in_flight) in table.routable() {
            let candidate = Candidate {
                id: stored.id,
                name: stored
                    .display_name
                    .as_deref()
                    .unwrap_or(&stored.machine_name)
                    .into(),
                link: Link::direct(stored.ip_address, stored.port),
                speaks_ollama: stored.runtime.kind == RuntimeKind::Ollama,
                in_flight: Arc::clone(in_flight),
            };
            if let Some(version) = &stored.runtime.version {
                *candidates.versions.entry(version.clone()).or_default() += 1;
            }
            for model in &stored.runtime.models {
                let agents = candidates.by_model.entry(model.name.clone()).or_default();
                agents.push(candidate.clone());
                if !candidates.models.contains_key(&model.name) {
                    candidates.models.insert(model.name.clone(), model.clone());
                }
            }
        }
        candidates
    }

    /// Returns the revision of the registry that this shows.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the agents that have `model`, under its full name or without `:latest`.
    pub fn with_model(&self, model: &str) -> &[Candidate] {
        let exact = self.by_model.get(model);
        let agents = exact.or_else(|| self.by_model.get(&full_model_name(model)));
        agents.map_or(&[], Vec::as_slice)
    }

    /// Returns every model that some routable agent has, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.values()
    }

    /// Returns the runtime version that most routable agents run.
    pub fn commonest_version(&self) -> Option<&str> {
        let commonest = self.versions.iter().max_by_key(|(_, agents)| **agents);
        commonest.map(|(version, _)| version.as_str())
    }
}
