//! What has changed for the balancer since it last asked, the newest of each agent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::system::Metrics;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::agent::Link;
use crate::storage::agent::StoredAgent;

/// What the balancer has to know of an agent.
#[derive(Debug, Clone)]
pub struct RoutingFacts {
    /// Its durable record.
    pub stored: Arc<StoredAgent>,
    /// How its runtime is reached.
    pub link: Link,
    /// Its latest load figures.
    pub metrics: Option<Arc<Metrics>>,
    /// Where to show how many requests it is serving.
    pub in_flight: Arc<AtomicU32>,
    /// Whether anything but an ejection speaks against it.
    pub is_routable: bool,
    /// Whether its heartbeats are missing, so that others should be asked first.
    pub is_suspect: bool,
    /// How often it has registered.
    pub registrations: u64,
}

/// The newest of each agent that changed; `None`: it was forgotten.
pub type RoutingChanges = BTreeMap<AgentId, Option<RoutingFacts>>;

/// Changes on their way from the registry to the balancer.
///
/// Its lock is a leaf: it is taken while the table's or the balancer's is held, and under it no
/// other one is.
#[derive(Debug, Default)]
pub(super) struct RoutingFeed {
    changes: Mutex<RoutingChanges>,
    has_changes: AtomicBool,
    changed: Notify,
}

impl RoutingFeed {
    /// Adds changes, each of which replaces an older one of the same agent.
    pub(super) fn push(&self, mut newer: RoutingChanges) {
        if newer.is_empty() {
            return;
        }
        self.changes.lock().append(&mut newer);
        self.has_changes.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Takes what there is; cheap when there is nothing.
    pub(super) fn take(&self) -> RoutingChanges {
        if !self.has_changes.swap(false, Ordering::Acquire) {
            return RoutingChanges::new();
        }
        std::mem::take(&mut *self.changes.lock())
    }

    /// Resolves when there may be something.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
