//! Finds the registry at start: the file, else its last good copy, each with the journals that
//! follow it, else an earlier product's.
//!
//! Everything is read and judged before anything is touched; what is damaged is kept as evidence.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use ollama_coordinator_common::atomic_file;
use ollama_coordinator_common::atomic_file::file_system::FileSystem;

use super::Inspection;
use super::contents::Contents;
use super::document::{self, DocumentError};
use super::replay::{self, DamagedJournal};
use super::{evidence, legacy};
use crate::storage::StoreError;
use crate::storage::recovery::Recovery;

/// What a store goes on from.
pub(super) struct Restored {
    pub(super) contents: Contents,
    pub(super) recovery: Recovery,
    /// Whether the file itself was there and is still in its place.
    pub(super) on_disk: bool,
    /// The generations that journals beside it follow.
    pub(super) journals: BTreeSet<u64>,
}

pub(super) fn restore(
    fs: &dyn FileSystem,
    path: &Path,
    import_from: Option<&Path>,
) -> Result<Restored, StoreError> {
    let target = atomic_file::resolve(fs, path);
    let found = Found::read(fs, &target)?;
    match atomic_file::remove_stale_temporaries(fs, &target) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "Temporary files of a crashed run were removed"),
        Err(error) => tracing::warn!(%error, "Stale temporary files could not be removed"),
    }
    let Found {
        file,
        copy,
        journals,
        damaged,
    } = found;
    let (contents, recovery, on_disk) = match (file, copy) {
        (Examined::Good(contents), _) => {
            let recovery = whole(fs, &target, &contents, &damaged);
            let recovery = recovery.map_err(|source| StoreError::Evidence {
                path: target.clone(),
                source,
            })?;
            (contents, recovery, true)
        }
        (Examined::Missing, Examined::Missing) => {
            let (contents, recovery) = import(fs, import_from);
            (contents, recovery, false)
        }
        (file, copy) => {
            let backup = from_backup(fs, &target, (file, copy), &damaged);
            let (contents, recovery) = backup.map_err(|source| StoreError::Evidence {
                path: target.clone(),
                source,
            })?;
            (contents, recovery, false)
        }
    };
    Ok(Restored {
        contents,
        recovery,
        on_disk,
        journals,
    })
}

/// Reads and judges the registry without touching anything.
pub(super) fn inspect(fs: &dyn FileSystem, path: &Path) -> Result<Inspection, StoreError> {
    let target = atomic_file::resolve(fs, path);
    let found = Found::read(fs, &target)?;
    Ok(match found.file {
        Examined::Missing if found.copy.is_missing() => Inspection::Missing,
        Examined::Missing => Inspection::Damaged {
            cause: "it is missing, though its backup is there".to_owned(),
        },
        Examined::Good(contents) => match found.damaged.first() {
            Some(journal) => Inspection::Damaged {
                cause: journal.to_string(),
            },
            None => Inspection::Whole {
                agents: contents.agents.len(),
                rejected: contents.rejected.len(),
            },
        },
        Examined::Damaged(cause) => Inspection::Damaged { cause },
    })
}

enum Examined {
    Missing,
    Good(Contents),
    Damaged(String),
}

impl Examined {
    fn is_missing(&self) -> bool {
        match self {
            Self::Missing => true,
            Self::Good(_) | Self::Damaged(_) => false,
        }
    }
}

/// Everything that there is, read and judged.
struct Found {
    file: Examined,
    /// The backup, looked at only when the file is of no use.
    copy: Examined,
    journals: BTreeSet<u64>,
    damaged: Vec<DamagedJournal>,
}

impl Found {
    fn read(fs: &dyn FileSystem, target: &Path) -> Result<Self, StoreError> {
        let mut file = examine(fs, target)?;
        let mut copy = match &file {
            Examined::Good(_) => Examined::Missing,
            Examined::Missing | Examined::Damaged(_) => {
                examine(fs, &atomic_file::sibling(target, ".bak"))?
            }
        };
        let journals = replay::journals(fs, target).map_err(|source| StoreError::Read {
            path: atomic_file::parent(target).to_owned(),
            source,
        })?;
        let damaged = match (&mut file, &mut copy) {
            (Examined::Good(contents), _) => {
                Vec::from_iter(replay::after_file(fs, target, contents)?)
            }
            (_, Examined::Good(contents)) => replay::after_backup(fs, target, contents, &journals)?,
            (_, Examined::Missing | Examined::Damaged(_)) => Vec::new(),
        };
        Ok(Self {
            file,
            copy,
            journals,
            damaged,
        })
    }
}

/// Reads and judges one file without touching it.
fn examine(fs: &dyn FileSystem, path: &Path) -> Result<Examined, StoreError> {
    let bytes = match fs.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Examined::Missing),
        Err(source) => {
            let path = path.to_owned();
            return Err(StoreError::Read { path, source });
        }
    };
    if let Some(registry) = legacy::parse(&bytes) {
        return Ok(Examined::Good(Contents::from_legacy(registry)));
    }
    match document::parse(&bytes) {
        Ok(document) => {
            if document.checksum.is_none() {
                tracing::warn!(
                    path = %path.display(),
                    "Registry has no checksum, as after editing by hand; it is taken as it is"
                );
            }
            Ok(Examined::Good(Contents::from_document(
                document,
                bytes.len(),
            )))
        }
        Err(DocumentError::NewerSchema { found }) => Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: document::SCHEMA_VERSION,
        }),
        Err(error) => Ok(Examined::Damaged(error.to_string())),
    }
}

fn whole(
    fs: &dyn FileSystem,
    target: &Path,
    contents: &Contents,
    damaged: &[DamagedJournal],
) -> io::Result<Recovery> {
    let agents = contents.agents.len();
    if let Some(skipped) = contents.skipped_by_import {
        evidence::keep_copy(fs, target)?;
        return Ok(Recovery::Imported {
            path: target.to_owned(),
            agents,
            skipped,
        });
    }
    let kept = keep_journals(fs, target, damaged)?;
    let quarantined = if contents.rejected.is_empty() {
        None
    } else {
        Some(evidence::quarantine(fs, target, &contents.rejected)?)
    };
    let records = contents.rejected.len();
    Ok(match (quarantined, damaged.first()) {
        (None, None) => Recovery::Clean,
        (Some(evidence), None) => Recovery::Quarantined { records, evidence },
        (_, Some(journal)) => Recovery::DamagedJournal {
            cause: journal.to_string(),
            evidence: kept,
            agents,
            quarantined: records,
        },
    })
}

fn from_backup(
    fs: &dyn FileSystem,
    target: &Path,
    (file, copy): (Examined, Examined),
    damaged: &[DamagedJournal],
) -> io::Result<(Contents, Recovery)> {
    let mut kept = Vec::new();
    let mut cause = match file {
        Examined::Damaged(cause) => {
            kept.push(evidence::set_aside(fs, target, target)?);
            format!("{} is damaged: {cause}", target.display())
        }
        Examined::Missing | Examined::Good(_) => format!("{} is missing", target.display()),
    };
    let contents = match copy {
        Examined::Good(contents) => contents,
        Examined::Damaged(_) => {
            let backup = atomic_file::sibling(target, ".bak");
            kept.push(evidence::set_aside(fs, target, &backup)?);
            return Ok(empty(cause, kept));
        }
        Examined::Missing => return Ok(empty(cause, kept)),
    };
    if !contents.rejected.is_empty() {
        evidence::quarantine(fs, target, &contents.rejected)?;
    }
    kept.extend(keep_journals(fs, target, damaged)?);
    for journal in damaged {
        write!(cause, "; {journal}").expect("writing to a String cannot fail");
    }
    let recovery = Recovery::FromBackup {
        cause,
        evidence: kept,
        agents: contents.agents.len(),
        quarantined: contents.rejected.len(),
    };
    Ok((contents, recovery))
}

fn empty(cause: String, evidence: Vec<PathBuf>) -> (Contents, Recovery) {
    (Contents::default(), Recovery::Empty { cause, evidence })
}

/// Copies damaged journals: the originals are needed until a new file is written.
fn keep_journals(
    fs: &dyn FileSystem,
    target: &Path,
    damaged: &[DamagedJournal],
) -> io::Result<Vec<PathBuf>> {
    let copies = damaged
        .iter()
        .map(|journal| evidence::copy_damaged(fs, target, &journal.path));
    copies.collect()
}

/// Takes over an earlier product's registry, if there is one; that file is only read.
fn import(fs: &dyn FileSystem, path: Option<&Path>) -> (Contents, Recovery) {
    let new = (Contents::default(), Recovery::New);
    let Some(path) = path else { return new };
    let bytes = match fs.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return new,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "Earlier registry could not be read");
            return new;
        }
    };
    let Some(registry) = legacy::parse(&bytes) else {
        tracing::warn!(path = %path.display(), "Earlier registry is not understood; not imported");
        return new;
    };
    let recovery = Recovery::Imported {
        path: path.to_owned(),
        agents: registry.agents.len(),
        skipped: registry.skipped,
    };
    (Contents::from_legacy(registry), recovery)
}
