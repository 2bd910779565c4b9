//! Keeps damaged files and records: they may be all that is left of somebody's registry.

use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use ollama_coordinator_common::atomic_file::file_system::FileSystem;
use ollama_coordinator_common::atomic_file::{self, Backup};
use serde::Serialize;
use serde_json::value::RawValue;

/// Pieces of each kind that are kept; beyond that the oldest goes.
const MAX_KEPT: usize = 5;
const CORRUPT: &str = ".corrupt-";
const QUARANTINED: &str = ".quarantined-";
const IMPORTED: &str = ".imported-";

/// A record that makes no sense, and why.
#[derive(Debug, Serialize)]
pub(super) struct Rejected {
    pub(super) reason: String,
    pub(super) record: Box<RawValue>,
}

/// Moves `damaged`, a file beside `target` or `target` itself, to a name that is free.
pub(super) fn set_aside(fs: &dyn FileSystem, target: &Path, damaged: &Path) -> io::Result<PathBuf> {
    let evidence = free_name(fs, target, CORRUPT)?;
    fs.rename(damaged, &evidence)?;
    fs.sync_directory(atomic_file::parent(target))?;
    prune(fs, target, CORRUPT, &evidence);
    Ok(evidence)
}

/// Writes the rejected records beside `target`.
pub(super) fn quarantine(
    fs: &dyn FileSystem,
    target: &Path,
    rejected: &[Rejected],
) -> io::Result<PathBuf> {
    let evidence = free_name(fs, target, QUARANTINED)?;
    let mut text = serde_json::to_vec_pretty(rejected)?;
    text.push(b'\n');
    atomic_file::replace(fs, &evidence, &text, Backup::Discard)?;
    prune(fs, target, QUARANTINED, &evidence);
    Ok(evidence)
}

/// Copies `target` as it was before its format is brought up to date.
pub(super) fn keep_copy(fs: &dyn FileSystem, target: &Path) -> io::Result<PathBuf> {
    copy(fs, target, target, IMPORTED)
}

/// Copies `damaged`, a file beside `target` that stays where it is until it is not needed.
pub(super) fn copy_damaged(
    fs: &dyn FileSystem,
    target: &Path,
    damaged: &Path,
) -> io::Result<PathBuf> {
    copy(fs, target, damaged, CORRUPT)
}

fn copy(fs: &dyn FileSystem, target: &Path, original: &Path, kind: &str) -> io::Result<PathBuf> {
    let copy = free_name(fs, target, kind)?;
    atomic_file::replace(fs, &copy, &fs.read(original)?, Backup::Discard)?;
    prune(fs, target, kind, &copy);
    Ok(copy)
}

fn free_name(fs: &dyn FileSystem, target: &Path, kind: &str) -> io::Result<PathBuf> {
    let taken = names(fs, target, kind)?;
    let time: DateTime<Utc> = Utc::now();
    let stem = format!("{kind}{}", time.format("%Y%m%dT%H%M%S.%6fZ"));
    let mut path = atomic_file::sibling(target, &stem);
    let mut number = 2;
    while taken.contains(&path) {
        path = atomic_file::sibling(target, &format!("{stem}-{number}"));
        number += 1;
    }
    Ok(path)
}

/// Removes the oldest, but never `newest`, which a clock set back may have given an old name.
fn prune(fs: &dyn FileSystem, target: &Path, kind: &str, newest: &Path) {
    let pruned = names(fs, target, kind).and_then(|mut older| {
        older.retain(|path| path != newest);
        older.sort();
        let surplus = (older.len() + 1).saturating_sub(MAX_KEPT);
        let mut oldest = older.iter().take(surplus);
        oldest.try_for_each(|path| fs.remove_file(path))
    });
    if let Err(error) = pruned {
        tracing::warn!(%error, "Oldest evidence of damage could not be removed");
    }
}

fn names(fs: &dyn FileSystem, target: &Path, kind: &str) -> io::Result<Vec<PathBuf>> {
    let directory = atomic_file::parent(target);
    let prefix = atomic_file::sibling(target, kind);
    let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    let names = fs.names(directory)?;
    Ok(names
        .into_iter()
        .filter(|name| name.as_encoded_bytes().starts_with(prefix))
        .map(|name| directory.join(name))
        .collect())
}
