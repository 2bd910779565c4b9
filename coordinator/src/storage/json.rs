//! The registry as one readable JSON file, replaced as a whole by each commit; when it is large,
//! what changes is appended to a journal beside it, which is folded in from time to time.
//!
//! Each agent's text is kept in memory, so that a commit serialises only what changes. How the
//! files are found whole again after damage is [`restore`]'s business.

mod plan;

mod document;
mod journal;

mod files;
mod lock;
mod mount;

mod contents;
mod evidence;
mod legacy;
mod replay;
mod restore;

mod checksum;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator_common::atomic_file::file_system::{Disk, FileSystem, create_directory};
use ollama_coordinator_common::atomic_file::{self, ReplaceError};
use ollama_coordinator_common::id::AgentId;

use self::document::Extra;
use self::files::Files;
use self::lock::DirectoryLock;
use self::plan::Step;
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

/// When the whole file is written, and when what changed is appended to a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A file of so many bytes, or fewer, has no journal.
    pub small_file: u64,
    /// How long the journal becomes before it is folded in, in per cent of the file.
    pub journal_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            small_file: 1 << 20,
            journal_percent: 100,
        }
    }
}

/// Stores agents in `agents.json` and its journal.
#[derive(Debug)]
pub struct JsonStore {
    files: Files,
    limits: Limits,
    import_from: Option<PathBuf>,
    records: Records,
    generation: u64,
    extra: Extra,
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
        let checked = atomic_file::check_writable(store.files.fs(), store.files.path());
        checked.map_err(|source| OpenError::NotWritable {
            path: data_dir.to_owned(),
            source,
        })?;
        Ok(store)
    }

    /// Makes a store on another file system, without a lock: for tests of durability.
    #[doc(hidden)]
    pub fn on(fs: Arc<dyn FileSystem>, data_dir: &Path, import_from: Option<&Path>) -> Self {
        Self {
            files: Files::new(fs, data_dir.join(FILE_NAME)),
            limits: Limits::default(),
            import_from: import_from.map(Path::to_owned),
            records: BTreeMap::new(),
            generation: 0,
            extra: Extra::default(),
            _lock: None,
        }
    }

    /// Has a journal earlier or later than the default: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Writes the present state as a generation of its own.
    fn write_next(&mut self) -> Result<(), ReplaceError> {
        let next = self.generation + 1;
        self.files.replace(next, &self.extra, &self.records)?;
        self.generation = next;
        Ok(())
    }

    /// Writes the present state, which is stored already, as the whole file.
    fn fold(&mut self) -> Result<(), ReplaceError> {
        self.files.fold(self.generation, &self.extra, &self.records)
    }

    /// Makes `changes` durable, in the file or after it.
    fn store(&mut self, changes: Vec<RecordChange>) -> Result<(), ReplaceError> {
        self.files.close_journal_if_deleted();
        let situation = self.files.situation();
        match plan::next_step(self.limits, situation, changes.len()) {
            Step::Whole => {
                let undo = apply(&mut self.records, changes);
                let written = self.write_next();
                if written.is_err() {
                    apply(&mut self.records, undo);
                }
                return written;
            }
            Step::Fold => self.fold()?,
            Step::Append => {}
        }
        if !changes.is_empty() {
            self.files.append(self.generation + 1, &changes)?;
            self.generation += 1;
            apply(&mut self.records, changes);
        }
        Ok(())
    }
}

impl Store for JsonStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let Restored {
            contents,
            recovery,
            on_disk,
            journals,
        } = restore::restore(
            self.files.fs(),
            self.files.path(),
            self.import_from.as_deref(),
        )?;
        self.files.found(on_disk.then_some(contents.file), journals);
        self.records = contents.records;
        self.generation = contents.generation;
        self.extra = contents.extra;
        if recovery.calls_for_a_new_file()
            && let Err(error) = self.write_next()
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
        self.store(changes)?;
        Ok(())
    }

    fn close(&mut self) {
        if self.files.is_whole_at(self.generation) {
            return;
        }
        if let Err(error) = self.fold() {
            tracing::warn!(
                error = format!("{:#}", anyhow::Error::from(error)),
                "Journal could not be folded into the registry's file; it is read at the next start"
            );
        }
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

/// Each agent's text in the file.
type Records = BTreeMap<AgentId, Box<str>>;

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
fn apply(records: &mut Records, changes: Vec<RecordChange>) -> Vec<RecordChange> {
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
