//! Finds the journals of a file or of its backup and applies what is in them.
//!
//! Only reads. What cannot be believed is left out and said; what can be is applied.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ollama_coordinator_common::atomic_file;
use ollama_coordinator_common::atomic_file::file_system::FileSystem;

use super::contents::Contents;
use super::document;
use super::journal::{self, Base, Frame, NewerSchema};
use crate::storage::StoreError;

const SUFFIX: &str = ".journal-";

/// A journal of which something could not be believed.
#[derive(Debug)]
pub(super) struct DamagedJournal {
    pub(super) path: PathBuf,
    cause: &'static str,
}

impl fmt::Display for DamagedJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.path.display(), self.cause)
    }
}

/// Returns where the journal lies that follows `target` at `generation`.
pub(super) fn journal_path(target: &Path, generation: u64) -> PathBuf {
    atomic_file::sibling(target, &format!("{SUFFIX}{generation}"))
}

/// Returns the generations that journals beside `target` say they follow.
pub(super) fn journals(fs: &dyn FileSystem, target: &Path) -> io::Result<BTreeSet<u64>> {
    let prefix = atomic_file::sibling(target, SUFFIX);
    let prefix = prefix.file_name().unwrap_or_default().to_string_lossy();
    let names = match fs.names(atomic_file::parent(target)) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let generations = names.iter().filter_map(|name| {
        let digits = name.to_str()?.strip_prefix(&*prefix)?;
        digits.parse().ok()
    });
    Ok(generations.collect())
}

/// Applies the journal that follows the very file that `contents` are from.
pub(super) fn after_file(
    fs: &dyn FileSystem,
    target: &Path,
    contents: &mut Contents,
) -> Result<Option<DamagedJournal>, StoreError> {
    if contents.skipped_by_import.is_some() {
        return Ok(None);
    }
    let (generation, checksum) = (contents.generation, contents.file.checksum);
    let follows = |base: Base| {
        base.generation == generation && checksum.is_none_or(|checksum| checksum == base.checksum)
    };
    one(fs, target, contents, (generation, u64::MAX), follows)
}

/// Applies all journals since the backup that `contents` are from: its own and those of the
/// files after it, each as far as the next one goes on from it.
pub(super) fn after_backup(
    fs: &dyn FileSystem,
    target: &Path,
    contents: &mut Contents,
    journals: &BTreeSet<u64>,
) -> Result<Vec<DamagedJournal>, StoreError> {
    let mut damaged = Vec::new();
    if contents.skipped_by_import.is_some() {
        return Ok(damaged);
    }
    let mut later = journals.range(contents.generation..).copied().peekable();
    while let Some(generation) = later.next() {
        let end = later.peek().copied().unwrap_or(u64::MAX);
        let follows = |base: Base| base.generation == generation;
        damaged.extend(one(fs, target, contents, (generation, end), follows)?);
    }
    Ok(damaged)
}

/// Applies the journal of one generation, up to the generation `end`.
fn one(
    fs: &dyn FileSystem,
    target: &Path,
    contents: &mut Contents,
    (generation, end): (u64, u64),
    follows: impl Fn(Base) -> bool,
) -> Result<Option<DamagedJournal>, StoreError> {
    let path = journal_path(target, generation);
    let bytes = match fs.read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Read { path, source }),
    };
    let journal = match journal::parse(&bytes) {
        Ok(journal) => journal,
        Err(NewerSchema { found }) => {
            return Err(StoreError::NewerSchema {
                path,
                found,
                supported: document::SCHEMA_VERSION,
            });
        }
    };
    if journal.torn > 0 {
        tracing::info!(
            path = %path.display(),
            bytes = journal.torn,
            "Registry's journal ends in a change that was cut off before it was acknowledged"
        );
    }
    let all = journal.frames.len();
    let mut frames = journal.frames;
    frames.retain(|frame| follows(frame.base));
    if frames.is_empty() && all > 0 {
        tracing::info!(path = %path.display(), "Journal of another registry file is ignored");
        return Ok(None);
    }
    frames.retain(|frame| frame.generation <= end);
    let begins_late = contents.generation < generation;
    let has_gap = begins_late | !in_sequence(generation, &mut frames);
    contents.apply(frames);
    let cause = match (journal.is_damaged, has_gap) {
        (true, _) => "a part of it is damaged",
        (false, true) => "changes are missing in or before it",
        (false, false) => return Ok(None),
    };
    Ok(Some(DamagedJournal { path, cause }))
}

/// Returns whether the batches go on from `generation` one by one; those that go back are
/// removed.
fn in_sequence(generation: u64, frames: &mut Vec<Frame<'_>>) -> bool {
    let mut reached = generation;
    let mut is_whole = true;
    frames.retain(|frame| {
        let is_later = frame.generation > reached;
        is_whole &= frame.generation == reached + 1;
        reached = reached.max(frame.generation);
        is_later
    });
    is_whole
}
