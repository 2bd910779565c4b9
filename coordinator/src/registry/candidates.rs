//! The models that routable agents have, for lists: changed in place, agent by agent.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::Model;

use crate::storage::agent::StoredAgent;

/// Every model and version that some routable agent has, at one moment.
#[derive(Debug, Default)]
pub struct Candidates {
    models: Vec<Arc<Model>>,
    commonest_version: Option<Arc<str>>,
}

impl Candidates {
    /// Returns every model that some routable agent has, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.iter().map(Arc::as_ref)
    }

    /// Returns the runtime version that most routable agents run.
    pub fn commonest_version(&self) -> Option<&str> {
        self.commonest_version.as_deref()
    }
}

/// How many routable agents have each model and version.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    by_agent: HashMap<AgentId, Entry>,
    models: BTreeMap<Arc<str>, Shared>,
    versions: BTreeMap<Arc<str>, usize>,
    latest: Option<Arc<Candidates>>,
}

/// What one agent has.
#[derive(Debug)]
struct Entry {
    models: Vec<Arc<str>>,
    version: Option<Arc<str>>,
}

/// A model as the first agent described it, and how many have it.
#[derive(Debug)]
struct Shared {
    model: Arc<Model>,
    agents: usize,
}

impl Catalogue {
    /// Takes over what an agent has; `None`: it gets no requests or was forgotten.
    pub(super) fn set(&mut self, id: AgentId, stored: Option<&StoredAgent>) {
        if self.is_current(id, stored) {
            return;
        }
        self.latest = None;
        if let Some(entry) = self.by_agent.remove(&id) {
            self.take_out(entry);
        }
        if let Some(stored) = stored {
            let entry = self.put_in(stored);
            self.by_agent.insert(id, entry);
        }
    }

    /// Returns what there is, made only when something has changed since the last time.
    pub(super) fn candidates(&mut self) -> Arc<Candidates> {
        let Self {
            models,
            versions,
            latest,
            by_agent: _,
        } = self;
        let made = latest.get_or_insert_with(|| {
            let commonest = versions.iter().max_by_key(|(_, agents)| **agents);
            Arc::new(Candidates {
                models: models
                    .values()
                    .map(|shared| Arc::clone(&shared.model))
                    .collect(),
                commonest_version: commonest.map(|(version, _)| Arc::clone(version)),
            })
        });
        Arc::clone(made)
    }

    fn is_current(&self, id: AgentId, stored: Option<&StoredAgent>) -> bool {
        match (self.by_agent.get(&id), stored) {
            (None, None) => true,
            (Some(entry), Some(stored)) => {
                let names = stored.runtime.models.iter().map(|model| &*model.name);
                entry.version.as_deref() == stored.runtime.version.as_deref()
                    && names.eq(entry.models.iter().map(|name| &**name))
            }
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    fn put_in(&mut self, stored: &StoredAgent) -> Entry {
        let version = stored.runtime.version.as_deref();
        let version = version.map(|version| known_or_new(&self.versions, version));
        if let Some(version) = &version {
            *self.versions.entry(Arc::clone(version)).or_default() += 1;
        }
        let mut names = Vec::with_capacity(stored.runtime.models.len());
        for model in &stored.runtime.models {
            let name = known_or_new(&self.models, &model.name);
            let shared = self
                .models
                .entry(Arc::clone(&name))
                .or_insert_with(|| Shared {
                    model: Arc::new(model.clone()),
                    agents: 0,
                });
            shared.agents += 1;
            names.push(name);
        }
        Entry {
            models: names,
            version,
        }
    }

    fn take_out(&mut self, entry: Entry) {
        for name in entry.models {
            if let Some(shared) = self.models.get_mut(&name) {
                shared.agents -= 1;
                if shared.agents == 0 {
                    self.models.remove(&name);
                }
            }
        }
        if let Some(version) = entry.version
            && let Some(agents) = self.versions.get_mut(&version)
        {
            *agents -= 1;
            if *agents == 0 {
                self.versions.remove(&version);
            }
        }
    }
}

fn known_or_new<T>(known: &BTreeMap<Arc<str>, T>, name: &str) -> Arc<str> {
    let found = known.get_key_value(name);
    found.map_or_else(|| name.into(), |(name, _)| Arc::clone(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;
    use proptest::prelude::*;

    fn stored(number: u128, models: &[u8]) -> StoredAgent {
        let id = AgentId::from_u128(number);
        let mut stored = StoredAgent::new(id, "gpu", ([127, 0, 0, 1].into(), 1), Utc::now());
        stored.runtime.version = Some(format!("0.{}", models.len()));
        stored.runtime.models = models
            .iter()
            .map(|model| Model::named(format!("model-{model}:latest")))
            .collect();
        stored
    }

    proptest! {
        #[test]
        fn lists_show_what_the_routable_agents_have(
            changes in proptest::collection::vec(
                (0_u128..6, proptest::option::of(proptest::collection::btree_set(0_u8..9, 0..5))),
                0..40,
            ),
        ) {
            let mut catalogue = Catalogue::default();
            let mut agents = BTreeMap::new();
            for (number, models) in changes {
                let models = models.map(|models| models.into_iter().collect::<Vec<_>>());
                let agent = models.map(|models| stored(number, &models));
                catalogue.set(AgentId::from_u128(number), agent.as_ref());
                agents.insert(number, agent);

                let candidates = catalogue.candidates();
                let listed: Vec<&str> = candidates.models().map(|model| &*model.name).collect();
                let routable = || agents.values().flatten().map(|agent| &agent.runtime);
                let mut expected: Vec<&str> =
                    routable().flat_map(|runtime| &runtime.models).map(|m| &*m.name).collect();
                expected.sort_unstable();
                expected.dedup();
                prop_assert_eq!(listed, expected);
                let versions = || routable().filter_map(|runtime| runtime.version.as_deref());
                let count = |version: &str| versions().filter(|other| *other == version).count();
                let most = versions().map(count).max();
                prop_assert_eq!(candidates.commonest_version().map(count), most);
            }
        }
    }
}
