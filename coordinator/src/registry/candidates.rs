//! The routable agents by model, made once per change of the registry.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use ollama_coordinator_common::protocol::runtime::{Model, RuntimeKind};

use super::agent::{Candidate, Link};
use super::snapshot::full_model_name;
use super::table::AgentTable;
use crate::storage::agent::StoredAgent;

/// Who can serve what, at one revision of the registry.
#[derive(Debug, Default)]
pub struct Candidates {
    revision: u64,
    by_model: HashMap<String, Vec<Candidate>>,
    models: BTreeMap<String, Model>,
    /// Models of agents that are not routable now.
    elsewhere: HashSet<String>,
    versions: BTreeMap<String, usize>,
}

impl Candidates {
    /// Collects what `table` knows.
    pub(super) fn of(table: &AgentTable) -> Self {
        let mut candidates = Self {
            revision: table.routing_revision(),
            ..Self::default()
        };
        for (is_routable, stored, in_flight) in table.by_routability() {
            if is_routable {
                candidates.add(stored, in_flight);
            } else {
                let names = stored.runtime.models.iter().map(|model| model.name.clone());
                candidates.elsewhere.extend(names);
            }
        }
        candidates
    }

    fn add(&mut self, stored: &StoredAgent, in_flight: &Arc<AtomicU32>) {
        let candidate = Candidate {
            id: stored.id,
            name: stored.name().into(),
            link: Link::direct(stored.ip_address, stored.port),
            speaks_ollama: stored.runtime.kind == RuntimeKind::Ollama,
            in_flight: Arc::clone(in_flight),
        };
        if let Some(version) = &stored.runtime.version {
            *self.versions.entry(version.clone()).or_default() += 1;
        }
        for model in &stored.runtime.models {
            let agents = self.by_model.entry(model.name.clone()).or_default();
            let is_repeated = agents.last().is_some_and(|last| last.id == stored.id);
            if !is_repeated {
                agents.push(candidate.clone());
            }
            if !self.models.contains_key(&model.name) {
                self.models.insert(model.name.clone(), model.clone());
            }
        }
    }

    /// Returns whether any agent, routable or not, has `model`.
    pub fn knows(&self, model: &str) -> bool {
        let full = full_model_name(model);
        let has = |name: &str| self.by_model.contains_key(name) || self.elsewhere.contains(name);
        has(model) || has(&full)
    }

    /// Returns the routing revision of the registry that this shows.
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
