//! The registry's files on the disk: the whole file, and the journal that follows it.
//!
//! A journal is named after the generation of its file, and each frame in it names that file, so
//! that no crash and no restored copy brings a file and another one's journal together. It is
//! written by the process that began it and through one handle; whatever goes wrong closes it.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use ollama_coordinator_common::atomic_file::{self, Backup, Previous, ReplaceError};

use super::checksum::Checksum;
use super::document::{self, Extra, Header};
use super::journal::{self, Base};
use super::plan::{JournalState, Situation};
use super::{RecordChange, Records, replay};

/// A whole file as it lies on the disk; by default one that is not there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WholeFile {
    pub(super) generation: u64,
    /// Absent when it was edited by hand.
    pub(super) checksum: Option<Checksum>,
    pub(super) bytes: u64,
}

/// Writes them, and knows what the last write has left behind.
#[derive(Debug)]
pub(super) struct Files {
    fs: Arc<dyn FileSystem>,
    path: PathBuf,
    /// What is in place, once something is.
    whole: Option<WholeFile>,
    journal: Option<Journal>,
    /// The generations that journals beside the file follow.
    journals: BTreeSet<u64>,
    backup_works: bool,
}

/// The journal of the file that is in place.
struct Journal {
    base: Base,
    /// None before its first batch.
    file: Option<Box<dyn NewFile>>,
    bytes: u64,
}

impl Files {
    pub(super) fn new(fs: Arc<dyn FileSystem>, path: PathBuf) -> Self {
        Self {
            fs,
            path,
            whole: None,
            journal: None,
            journals: BTreeSet::new(),
            backup_works: true,
        }
    }

    pub(super) fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes note of what was found at the start.
    pub(super) fn found(&mut self, whole: Option<WholeFile>, journals: BTreeSet<u64>) {
        self.whole = whole;
        self.journals = journals;
    }

    /// Returns whether the whole file tells the state of `generation`.
    pub(super) fn is_whole_at(&self, generation: u64) -> bool {
        self.whole.unwrap_or_default().generation == generation
    }

    /// Returns what the next batch can be written to.
    pub(super) fn situation(&self) -> Situation {
        let journal = match &self.journal {
            None => JournalState::Closed,
            Some(Journal { file: None, .. }) => JournalState::Ready,
            Some(journal) => JournalState::Open(journal.bytes),
        };
        Situation {
            file: self.whole.unwrap_or_default().bytes,
            journal,
        }
    }

    /// Closes the journal when somebody has deleted it or its file: what would be appended then
    /// would be lost.
    pub(super) fn close_journal_if_deleted(&mut self) {
        let Some(journal) = &self.journal else { return };
        let target = atomic_file::resolve(self.fs(), &self.path);
        let mut needed = vec![target.clone()];
        if journal.file.is_some() {
            needed.push(replay::journal_path(&target, journal.base.generation));
        }
        let names = self.fs.names(atomic_file::parent(&target));
        let names = names.unwrap_or_default();
        let is_missing = |path: &&PathBuf| !names.iter().any(|name| path.file_name() == Some(name));
        if let Some(path) = needed.iter().find(is_missing) {
            tracing::warn!(
                path = %path.display(),
                "File was deleted while the coordinator ran; the whole registry is written anew"
            );
            self.journal = None;
        }
    }

    /// Replaces the file by the state of `generation`.
    pub(super) fn replace(
        &mut self,
        generation: u64,
        extra: &Extra,
        records: &Records,
    ) -> Result<(), ReplaceError> {
        self.journal = None;
        let header = Header {
            generation,
            saved_at: self.fs.now(),
            extra,
        };
        let (text, checksum) = document::render(&header, records);
        let previous = atomic_file::replace(&*self.fs, &self.path, &text, Backup::Keep)?;
        let before = self.whole.replace(WholeFile {
            generation,
            checksum: Some(checksum),
            bytes: text.len() as u64,
        });
        self.remove_journals(&previous, before, generation);
        match previous {
            Previous::Missing if before.is_some() => tracing::warn!(
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
        Ok(())
    }

    /// Replaces the file by the state that is stored already; a journal can follow that.
    pub(super) fn fold(
        &mut self,
        generation: u64,
        extra: &Extra,
        records: &Records,
    ) -> Result<(), ReplaceError> {
        self.replace(generation, extra, records)?;
        let checksum = self.whole.and_then(|whole| whole.checksum);
        self.journal = checksum.map(|checksum| Journal {
            base: Base {
                generation,
                checksum,
            },
            file: None,
            bytes: 0,
        });
        Ok(())
    }

    /// Appends a batch that leads to `generation` to the journal, or begins one with it.
    pub(super) fn append(
        &mut self,
        generation: u64,
        changes: &[RecordChange],
    ) -> Result<(), ReplaceError> {
        // Put back after success only: what an error leaves at its end is uncertain, and a
        // second fsync of the same file may succeed although the first one lost data.
        let mut journal = self
            .journal
            .take()
            .expect("a batch is appended only where a journal is ready or open");
        let target = atomic_file::resolve(self.fs(), &self.path);
        let path = replay::journal_path(&target, journal.base.generation);
        let frame = journal::frame(journal.base, (generation, self.fs.now()), changes);
        match &mut journal.file {
            Some(file) => write(&mut **file, &frame, &path)?,
            None => journal.file = Some(self.begin(&path, journal.base, &frame)?),
        }
        journal.bytes += frame.len() as u64;
        self.journal = Some(journal);
        Ok(())
    }

    /// Creates a journal that holds one batch.
    fn begin(
        &mut self,
        path: &Path,
        base: Base,
        frame: &[u8],
    ) -> Result<Box<dyn NewFile>, ReplaceError> {
        if self.journals.contains(&base.generation) {
            // Of an attempt that failed, so nothing in it was acknowledged.
            self.fs
                .remove_file(path)
                .map_err(|source| failed("remove", path, source))?;
            self.journals.remove(&base.generation);
        }
        let mut file = self
            .fs
            .create_new(path)
            .map_err(|source| failed("create", path, source))?;
        self.journals.insert(base.generation);
        write(&mut *file, frame, path)?;
        let directory = atomic_file::parent(path);
        self.fs
            .sync_directory(directory)
            .map_err(|source| failed("flush the directory to disk", directory, source))?;
        Ok(file)
    }

    /// Removes the journals that neither the new file nor its backup needs, best effort. One
    /// that bears the new file's own generation is of an attempt that failed.
    fn remove_journals(&mut self, previous: &Previous, before: Option<WholeFile>, new: u64) {
        let is_needed = |generation: u64| match previous {
            Previous::Kept => before.is_some_and(|before| before.generation == generation),
            // An older backup stays, with all that came after it.
            Previous::Missing => true,
            Previous::NotKept(_) | Previous::Discarded => false,
        };
        let target = atomic_file::resolve(&*self.fs, &self.path);
        let fs = &*self.fs;
        self.journals.retain(|generation| {
            let path = replay::journal_path(&target, *generation);
            (*generation != new && is_needed(*generation)) || !remove(fs, &path)
        });
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("base", &self.base)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Removes a file; returns whether it is gone.
fn remove(fs: &dyn FileSystem, path: &Path) -> bool {
    match fs.remove_file(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "Old journal was left behind");
            false
        }
    }
}

fn write(file: &mut dyn NewFile, frame: &[u8], path: &Path) -> Result<(), ReplaceError> {
    file.write_all(frame)
        .map_err(|source| failed("write", path, source))?;
    file.sync()
        .map_err(|source| failed("flush to disk", path, source))
}

fn failed(attempted: &'static str, path: &Path, source: io::Error) -> ReplaceError {
    ReplaceError {
        attempted,
        path: path.to_owned(),
        source,
    }
}
