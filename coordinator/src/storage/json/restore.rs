//! Finds the registry at start: the file, else its last good copy, else an earlier product's.
//!
//! Everything is read and judged before anything is touched; what is damaged is kept as evidence.

use std::io;
use std::path::Path;

use ollama_coordinator_common::atomic_file;
use ollama_coordinator_common::atomic_file::file_system::FileSystem;

use super::Inspection;
use super::contents::Contents;
use super::document::{self, DocumentError};
use super::{evidence, legacy};
use crate::storage::StoreError;
use crate::storage::recovery::Recovery;

/// What a store goes on from.
pub(super) struct Restored {
    pub(super) contents: Contents,
    pub(super) recovery: Recovery,
    /// Whether the file itself was there and is still in its place.
    pub(super) on_disk: bool,
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

pub(super) fn restore(
    fs: &dyn FileSystem,
    path: &Path,
    import_from: Option<&Path>,
) -> Result<Restored, StoreError> {
    let target = atomic_file::resolve(fs, path);
    let backup = atomic_file::sibling(&target, ".bak");
    let file = examine(fs, &target)?;
    let copy = match &file {
        Examined::Good(_) => Examined::Missing,
        Examined::Missing | Examined::Damaged(_) => examine(fs, &backup)?,
    };
    let evidence = |source| StoreError::Evidence {
        path: target.clone(),
        source,
    };

    match atomic_file::remove_stale_temporaries(fs, &target) {
        Ok(0) => {}
        Ok(removed) => tracing::info!(removed, "Temporary files of a crashed run were removed"),
        Err(error) => tracing::warn!(%error, "Stale temporary files could not be removed"),
    }
    let mut damaged = Vec::new();
    let cause = match file {
        Examined::Good(contents) => return whole(fs, &target, contents).map_err(evidence),
        Examined::Missing if copy.is_missing() => return Ok(import(fs, import_from)),
        Examined::Missing => format!("{} is missing", target.display()),
        Examined::Damaged(cause) => {
            damaged.push(evidence::set_aside(fs, &target, &target).map_err(evidence)?);
            format!("{} is damaged: {cause}", target.display())
        }
    };
    if let Examined::Damaged(_) = copy {
        damaged.push(evidence::set_aside(fs, &target, &backup).map_err(evidence)?);
    }
    let (contents, recovery) = match copy {
        Examined::Good(contents) => {
            if !contents.rejected.is_empty() {
                evidence::quarantine(fs, &target, &contents.rejected).map_err(evidence)?;
            }
            let recovery = Recovery::FromBackup {
                cause,
                evidence: damaged.pop(),
                agents: contents.agents.len(),
                quarantined: contents.rejected.len(),
            };
            (contents, recovery)
        }
        Examined::Missing | Examined::Damaged(_) => {
            let evidence = damaged;
            (Contents::default(), Recovery::Empty { cause, evidence })
        }
    };
    Ok(Restored {
        contents,
        recovery,
        on_disk: false,
    })
}

/// Reads and judges the registry without touching anything.
pub(super) fn inspect(fs: &dyn FileSystem, path: &Path) -> Result<Inspection, StoreError> {
    let target = atomic_file::resolve(fs, path);
    let backup = || examine(fs, &atomic_file::sibling(&target, ".bak"));
    Ok(match examine(fs, &target)? {
        Examined::Missing if backup()?.is_missing() => Inspection::Missing,
        Examined::Missing => Inspection::Damaged {
            cause: "it is missing, though its backup is there".to_owned(),
        },
        Examined::Good(contents) => Inspection::Whole {
            agents: contents.agents.len(),
            rejected: contents.rejected.len(),
        },
        Examined::Damaged(cause) => Inspection::Damaged { cause },
    })
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
            if !document.has_checksum {
                tracing::warn!(
                    path = %path.display(),
                    "Registry has no checksum, as after editing by hand; it is taken as it is"
                );
            }
            Ok(Examined::Good(Contents::from_document(document)))
        }
        Err(DocumentError::NewerSchema { found }) => Err(StoreError::NewerSchema {
            path: path.to_owned(),
            found,
            supported: document::SCHEMA_VERSION,
        }),
        Err(error) => Ok(Examined::Damaged(error.to_string())),
    }
}

fn whole(fs: &dyn FileSystem, target: &Path, contents: Contents) -> io::Result<Restored> {
    let recovery = if let Some(skipped) = contents.skipped_by_import {
        evidence::keep_copy(fs, target)?;
        Recovery::Imported {
            path: target.to_owned(),
            agents: contents.agents.len(),
            skipped,
        }
    } else if contents.rejected.is_empty() {
        Recovery::Clean
    } else {
        Recovery::Quarantined {
            records: contents.rejected.len(),
            evidence: evidence::quarantine(fs, target, &contents.rejected)?,
        }
    };
    Ok(Restored {
        contents,
        recovery,
        on_disk: true,
    })
}

/// Takes over an earlier product's registry, if there is one; that file is only read.
fn import(fs: &dyn FileSystem, path: Option<&Path>) -> Restored {
    let new = Restored {
        contents: Contents::default(),
        recovery: Recovery::New,
        on_disk: false,
    };
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
    Restored {
        contents: Contents::from_legacy(registry),
        recovery,
        on_disk: false,
    }
}
