//! A store that forgets everything with its process; for tests and throw-away runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::Utc;
use ollama_coordinator_common::id::AgentId;
use parking_lot::Mutex;

use super::agent::StoredAgent;
use super::recovery::Recovery;
use super::{Change, Loaded, Store, StoreError};

/// Keeps agents in memory; clones share them, as a reopened file would.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    agents: Arc<Mutex<BTreeMap<AgentId, Arc<StoredAgent>>>>,
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let agents: Vec<_> = self
            .agents
            .lock()
            .values()
            .map(|agent| StoredAgent::clone(agent))
            .collect();
        let (saved_at, recovery) = if agents.is_empty() {
            (None, Recovery::New)
        } else {
            (Some(Utc::now()), Recovery::Clean)
        };
        Ok(Loaded {
            agents,
            saved_at,
            recovery,
        })
    }

    fn commit(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        let mut agents = self.agents.lock();
        for change in batch {
            match change {
                Change::Put(agent) => agents.insert(agent.id, Arc::clone(agent)),
                Change::Remove(id) => agents.remove(id),
            };
        }
        Ok(())
    }
}
