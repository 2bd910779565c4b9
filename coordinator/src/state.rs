//! What handlers share; each takes only its slice.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::FromRef;
use chrono::{DateTime, Utc};
use ollama_coordinator_common::shutdown::Shutdown;

use crate::feed::Feed;
use crate::history::History;
use crate::proxy::Proxy;
use crate::proxy::story::Storybook;
use crate::proxy::tunnels::Tunnels;
use crate::registry::Registry;
use crate::storage::recovery::Recovery;
use crate::storage::writer::Writer;

/// Everything a handler may need. It is cloned with every request, so it is one pointer.
#[derive(Clone)]
pub struct AppState(Arc<Parts>);

struct Parts {
    registry: Registry,
    proxy: Proxy,
    history: History,
    feed: Feed,
    process: Process,
}

impl AppState {
    /// Puts together what handlers share.
    pub fn new(registry: Registry, proxy: Proxy, history: History, process: Process) -> Self {
        Self(Arc::new(Parts {
            feed: Feed::new(registry.clone(), history.clone()),
            registry,
            proxy,
            history,
            process,
        }))
    }

    /// Returns the agents.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Returns the way to a model.
    pub fn proxy(&self) -> &Proxy {
        &self.0.proxy
    }

    /// Returns the load of the last day.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// Returns what viewers are told.
    pub fn feed(&self) -> &Feed {
        &self.0.feed
    }

    /// Returns the state of this process.
    pub fn process(&self) -> &Process {
        &self.0.process
    }
}

impl FromRef<AppState> for Registry {
    fn from_ref(state: &AppState) -> Self {
        state.0.registry.clone()
    }
}

impl FromRef<AppState> for Proxy {
    fn from_ref(state: &AppState) -> Self {
        state.0.proxy.clone()
    }
}

impl FromRef<AppState> for Tunnels {
    fn from_ref(state: &AppState) -> Self {
        state.0.proxy.tunnels().clone()
    }
}

impl FromRef<AppState> for Storybook {
    fn from_ref(state: &AppState) -> Self {
        state.0.proxy.storybook().clone()
    }
}

impl FromRef<AppState> for History {
    fn from_ref(state: &AppState) -> Self {
        state.0.history.clone()
    }
}

impl FromRef<AppState> for Feed {
    fn from_ref(state: &AppState) -> Self {
        state.0.feed.clone()
    }
}

impl FromRef<AppState> for Process {
    fn from_ref(state: &AppState) -> Self {
        state.0.process.clone()
    }
}

/// The state of this process.
#[derive(Clone)]
pub struct Process {
    /// Whether and how storage works.
    pub writer: Writer,
    /// How the registry was come by at the start.
    pub recovery: Arc<Recovery>,
    /// Whether the process is stopping.
    pub shutdown: Shutdown,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// Where it listens.
    pub local: SocketAddr,
}
