//! Durable storage of the registry: load everything once, commit batches of changes.
//!
//! Knows neither leases nor HTTP: whether an agent is alive is never stored. A second backend
//! implements [`Store`] and passes [`conformance`].

pub mod agent;
pub mod recovery;
pub mod writer;

pub mod json;
pub mod memory;

#[doc(hidden)]
pub mod conformance;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::atomic_file::ReplaceError;
use ollama_coordinator_common::id::AgentId;

use self::agent::StoredAgent;
use self::json::{JsonStore, OpenError};
use self::recovery::Recovery;

/// One step from one durable state to the next.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Stores the agent, replacing what is stored under its id.
    Put(Arc<StoredAgent>),
    /// Forgets the agent; an unknown id is no error.
    Remove(AgentId),
}

/// Durable storage, used by one thread.
pub trait Store: Send {
    /// Returns what is stored; called once, before the first commit.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Applies the changes in order, all or none; they are durable when this returns `Ok`.
    ///
    /// An empty batch writes the present state again: that tells whether storage works.
    fn commit(&mut self, batch: &[Change]) -> Result<(), StoreError>;

    /// Leaves what is stored as easy to read and to copy as it can be, before a clean end.
    ///
    /// Nothing is lost without it.
    fn close(&mut self) {}
}

/// What a store held when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// The agents, sorted by id.
    pub agents: Vec<StoredAgent>,
    /// When that state was stored.
    pub saved_at: Option<DateTime<Utc>>,
    /// How it was come by.
    pub recovery: Recovery,
}

/// Opens the JSON store in `data_dir` and holds it against other processes until it is dropped.
///
/// `import_from` is a registry of an earlier product, read when `data_dir` has none yet.
///
/// # Errors
/// The directory is not usable or another coordinator holds it.
pub fn open(data_dir: &Path, import_from: Option<&Path>) -> Result<JsonStore, OpenError> {
    JsonStore::open(data_dir, import_from)
}

/// Storage did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read at all, which says nothing about what is in it.
    #[error("failed to read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A newer coordinator wrote the file; nothing has been touched.
    #[error(
        "{} has schema version {found}, this coordinator reads up to {supported}: \
         start the newer coordinator, or move the file away to begin anew",
        path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest version known here.
        supported: u64,
    },
    /// A damaged file could not be set aside, so nothing was changed.
    #[error("failed to keep the damaged {} as evidence", path.display())]
    Evidence {
        /// The damaged file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The changes could not be made durable; what was stored before still is.
    #[error("failed to store the registry")]
    Write(#[from] ReplaceError),
    /// An agent has no form in this store.
    #[error("failed to serialise agent {id}")]
    Serialise {
        /// The agent.
        id: AgentId,
        /// Why.
        source: serde_json::Error,
    },
}
