//! What the registry tells: one agent, all of them, lists as JSON, counts. Nothing here changes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ollama_coordinator_common::id::AgentId;

use super::Registry;
use super::agent::Moment;
use super::candidates::Candidates;
use super::list::ListCache;
use super::snapshot::{AgentSnapshot, Brief};
use super::table::Counts;
use crate::storage::agent::StoredAgent;

/// What has happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Heartbeats received.
    pub heartbeats: u64,
    /// Registrations accepted.
    pub registrations: u64,
    /// Agents taken offline for their silence.
    pub expired_leases: u64,
    /// Agents kept online because their runtime answered when their lease ran out.
    pub missing_heartbeats: u64,
}

impl Registry {
    /// Returns one agent.
    pub fn get(&self, id: AgentId) -> Option<AgentSnapshot> {
        self.0.table.lock().get(id, Moment::now())
    }

    /// Returns all agents, sorted by id.
    pub fn snapshot(&self) -> Vec<AgentSnapshot> {
        self.0.table.lock().snapshot(Moment::now())
    }

    /// Returns all agents as a JSON array, made anew only when something changed.
    ///
    /// The times last seen, load figures and in-flight counts in it may be a second old.
    pub fn list_json(&self) -> Bytes {
        self.cached(&self.0.list, serde_json::to_vec)
    }

    /// Returns what [`Self::list_json`] does, with each agent as [`Brief`].
    pub fn brief_json(&self) -> Bytes {
        self.cached(&self.0.brief, |agents| {
            serde_json::to_vec(&agents.iter().map(Brief).collect::<Vec<_>>())
        })
    }

    fn cached(
        &self,
        cache: &ListCache,
        encode: impl FnOnce(&[AgentSnapshot]) -> serde_json::Result<Vec<u8>>,
    ) -> Bytes {
        let now = Moment::now();
        let revision = self.0.table.lock().revision();
        if let Some(json) = cache.get(revision, now.mono) {
            return json;
        }
        let (revision, agents) = {
            let table = self.0.table.lock();
            (table.revision(), table.snapshot(now))
        };
        let json = Bytes::from(encode(&agents).expect("agent documents serialise"));
        cache.put(revision, now.mono, json.clone());
        json
    }

    /// Returns the models that routable agents have; made anew only when they have changed.
    pub fn candidates(&self) -> Arc<Candidates> {
        self.0.table.lock().candidates()
    }

    /// Returns the records of the agents that may get requests, sorted by id: their loaded models.
    pub fn routable(&self) -> Vec<Arc<StoredAgent>> {
        self.0.table.lock().routable()
    }

    /// Returns how many agents there are.
    pub fn counts(&self) -> Counts {
        self.0.table.lock().counts()
    }

    /// Returns how many agents get no requests, by the code of the reason.
    pub fn unroutable(&self) -> BTreeMap<String, usize> {
        self.0.table.lock().unroutable()
    }

    /// Returns what has happened since the start.
    pub fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            heartbeats: load(&self.0.heartbeats),
            registrations: load(&self.0.registrations),
            expired_leases: load(&self.0.expired_leases),
            missing_heartbeats: load(&self.0.missing_heartbeats),
        }
    }
}
