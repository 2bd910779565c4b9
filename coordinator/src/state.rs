//! What handlers share; each takes only its slice.

use std::sync::Arc;

use axum::extract::FromRef;
use ollama_coordinator_common::shutdown::Shutdown;

use crate::proxy::Proxy;
use crate::registry::Registry;
use crate::storage::recovery::Recovery;
use crate::storage::writer::Writer;

/// Everything a handler may need.
#[derive(Clone, FromRef)]
pub struct AppState {
    /// The agents.
    pub registry: Registry,
    /// The way to a model.
    pub proxy: Proxy,
    /// What the readiness and the metrics show.
    pub process: Process,
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
}
