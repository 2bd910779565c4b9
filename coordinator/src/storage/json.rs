//! The registry as one readable JSON file, replaced as a whole by each commit.
//!
//! Each agent's text is kept in memory, so that a commit serialises only what changes. How the
//! file is found whole again after damage is [`restore`]'s business.

mod contents;
mod document;
mod evidence;
mod legacy;
mod lock;
mod mount;
mod restore;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator_common::atomic_file::file_system::{Disk, FileSystem, create_directory};
use ollama_coordinator_common::atomic_file::{self, Backup, Previous, ReplaceError};
use ollama_coordinator_common::id::AgentId;

use self::document::{Extra, Header};
use self::lock::DirectoryLock;
use self::restore::Restored;
use super::{Change, Loaded, Store, StoreError};

/// The registry's file in the data directory.
pub const FILE_NAME: &str = "agents.json";

/// A registry's file as it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// There is none yet.
    Missing,
    /// It can be read.
    Whole {
        /// Agents in it.
        agents: usize,
        /// Records in it that make no sense.
        rejected: usize,
    },
    /// It cannot be understood.
    Damaged {
        /// Why.
        cause: String,
    },
}

/// Looks at the registry in `data_dir` without touching it.
///
/// # Errors
/// The file cannot be read, or a newer coordinator wrote it.
pub fn inspect(data_dir: &Path) -> Result<Inspection, StoreError> {
    restore::inspect(&Disk, &data_dir.join(FILE_NAME))
}

/// Stores agents in `agents.json`.
#[derive(Debug)]
pub struct JsonStore {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    import_from: Option<PathBuf>,
    records: BTreeMap<AgentId, Box<str>>,
    generation: u64,
    extra: Extra,
    on_disk: bool,
    backup_works: bool,
    _lock: Option<DirectoryLock>,
}

impl JsonStore {
    /// Opens the store in `data_dir`, which is created if need be and then locked.
    pub(super) fn open(data_dir: &Path, import_from: Option<&Path>) -> Result<Self, OpenError> {
        create_directory(data_dir).map_err(|source| OpenError::CreateDirectory {
            path: data_dir.to_owned(),
            source,
        })?;
        if let Some(kind) = mount::network_file_system(data_dir) {
            tracing::warn!(
                path = %data_dir.display(),
                kind,
                "Data directory is on a network file system: locks and fsync may not hold there"
            );
        }
        let lock = DirectoryLock::acquire(data_dir)?;
        let store = Self {
            _lock: Some(lock),
            ..Self::on(Arc::new(Disk), data_dir, import_from)
        };
        atomic_file::check_writable(&*store.fs, &store.path).map_err(|source| {
            OpenError::NotWritable {
                path: data_dir.to_owned(),
                source,
            }
        })?;
        Ok(store)
    }

    /// Makes a store on another file system, without a lock: for tests of durability.
    #[doc(hidden)]
    pub fn on(fs: Arc<dyn FileSystem>, data_dir: &Path, import_from: Option<&Path>) -> Self {
        Self {
            fs,
            path: data_dir.join(FILE_NAME),
            import_from: import_from.map(Path::to_owned),
            records: BTreeMap::new(),
            generation: 0,
            extra: Extra::default(),
            on_disk: false,
            backup_works: true,
            _lock: None,
        }
    }

    /// Replaces the file by the present state.
    fn write(&mut self) -> Result<(), ReplaceError> {
        let header = Header {
            generation: self.generation + 1,
            saved_at: self.fs.now(),
            extra: &self.extra,
        };
        let text = document::render(&header, &self.records);
        let previous = atomic_file::replace(&*self.fs, &self.path, &text, Backup::Keep)?;
        self.generation += 1;
        match previous {
            Previous::Missing if self.on_disk => tracing::warn!(
                path = %self.path.display(),
                "Registry file was deleted while the coordinator ran; it has been written anew"
            ),
            Previous::NotKept(error) if self.backup_works => {
                self.backup_works = false;
                tracing::warn!(
                    path = %self.path.display(),
                    %error,
                    "No backup of the registry can be kept on this file system"
                );
            }
            Previous::Kept | Previous::Missing | Previous::NotKept(_) | Previous::Discarded => {}
        }
        self.on_disk = true;
        Ok(())
    }
}

impl Store for JsonStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let Restored {
            contents,
            recovery,
            on_disk,
        } = restore::restore(&*self.fs, &self.path, self.import_from.as_deref())?;
        self.records = contents.records;
        self.generation = contents.generation;
        self.extra = contents.extra;
        self.on_disk = on_disk;
        if recovery.calls_for_a_new_file()
            && let Err(error) = self.write()
        {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "Recovered registry could not be written back; the next commit tries again"
            );
        }
        Ok(Loaded {
            agents: contents.agents,
            saved_at: contents.saved_at,
            recovery,
        })
    }

    fn commit(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        let changes = batch.iter().map(serialise).collect::<Result<Vec<_>, _>>()?;
        let undo = apply(&mut self.records, changes);
        if let Err(error) = self.write() {
            apply(&mut self.records, undo);
            return Err(error.into());
        }
        Ok(())
    }
}

/// The data directory is of no use.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not there and cannot be made.
    #[error("failed to create the data directory {}", path.display())]
    CreateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nothing can be written there.
    #[error("the data directory {} is not writable", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another coordinator uses it.
    #[error("another coordinator{} uses this data directory (lock {})", process(*pid), path.display())]
    Locked {
        /// Its process id, when it could be read.
        pid: Option<u32>,
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file cannot be used.
    #[error("failed to lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

/// A record's new text, or none for a removal.
type RecordChange = (AgentId, Option<Box<str>>);

fn serialise(change: &Change) -> Result<RecordChange, StoreError> {
    match change {
        Change::Put(agent) => match document::record(agent) {
            Ok(text) => Ok((agent.id, Some(text))),
            Err(source) => Err(StoreError::Serialise {
                id: agent.id,
                source,
            }),
        },
        Change::Remove(id) => Ok((*id, None)),
    }
}

/// Applies the changes in order; applying what is returned takes them back.
fn apply(
    records: &mut BTreeMap<AgentId, Box<str>>,
    changes: Vec<RecordChange>,
) -> Vec<RecordChange> {
    let mut undo: Vec<_> = changes
        .into_iter()
        .map(|(id, text)| match text {
            Some(text) => (id, records.insert(id, text)),
            None => (id, records.remove(&id)),
        })
        .collect();
    undo.reverse();
    undo
}
