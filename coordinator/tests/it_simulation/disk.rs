//! A disk of which the power can be cut: what was not synced may be gone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use parking_lot::Mutex;
use rand::Rng as _;
use rand::rngs::SmallRng;

/// The largest piece that one write takes, so that a process may end in the middle of a file.
const PIECE: usize = 16 * 1024;

/// A disk with one directory; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Mutex<Parts>>);

#[derive(Debug)]
struct Parts {
    files: Vec<Contents>,
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// What happened to names since they were last made durable, step by step.
    pending: Vec<Vec<(PathBuf, Option<usize>)>>,
    is_full: bool,
    syncs: bool,
    /// How many operations are left until the process that makes them is gone.
    budget: Option<u32>,
    wall: DateTime<Utc>,
}

#[derive(Debug, Default)]
struct Contents {
    written: Vec<u8>,
    synced: usize,
}

impl Disk {
    /// Makes an empty disk; one that does not `sync` only says that it did.
    pub(crate) fn new(syncs: bool) -> Self {
        Self(Arc::new(Mutex::new(Parts {
            files: Vec::new(),
            names: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            is_full: false,
            syncs,
            budget: None,
            wall: DateTime::UNIX_EPOCH,
        })))
    }

    pub(crate) fn set_wall(&self, wall: DateTime<Utc>) {
        self.0.lock().wall = wall;
    }

    pub(crate) fn set_full(&self, is_full: bool) {
        self.0.lock().is_full = is_full;
    }

    /// Lets the process that uses it make so many operations more.
    pub(crate) fn set_budget(&self, budget: Option<u32>) {
        self.0.lock().budget = budget;
    }

    /// Cuts the power: of what was not synced, files keep a part and names the first changes.
    pub(crate) fn lose_power(&self, rng: &mut SmallRng) {
        let mut parts = self.0.lock();
        let kept = rng.random_range(0..=parts.pending.len());
        let mut names = parts.durable.clone();
        for change in parts.pending.drain(..).take(kept).flatten() {
            apply(&mut names, change);
        }
        for file in &mut parts.files {
            let length = rng.random_range(file.synced..=file.written.len());
            file.written.truncate(length);
            file.synced = length;
        }
        parts.durable.clone_from(&names);
        parts.names = names;
    }
}

fn apply(names: &mut BTreeMap<PathBuf, usize>, (path, file): (PathBuf, Option<usize>)) {
    match file {
        Some(file) => names.insert(path, file),
        None => names.remove(&path),
    };
}

impl Parts {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.budget {
            Some(0) => Err(io::Error::other("the process is gone")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names
            .get(path)
            .copied()
            .ok_or(ErrorKind::NotFound.into())
    }

    fn rename(&mut self, changes: Vec<(PathBuf, Option<usize>)>) {
        for change in changes.clone() {
            apply(&mut self.names, change);
        }
        self.pending.push(changes);
    }

    /// Frees what has no name any more.
    fn collect(&mut self) {
        let named: BTreeSet<usize> = self
            .names
            .values()
            .chain(self.durable.values())
            .copied()
            .collect();
        for (index, file) in self.files.iter_mut().enumerate() {
            if !named.contains(&index) && !file.written.is_empty() {
                *file = Contents::default();
            }
        }
    }
}

impl FileSystem for Disk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut parts = self.0.lock();
        parts.spend()?;
        if parts.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let number = parts.files.len();
        parts.files.push(Contents::default());
        parts.rename(vec![(path.to_owned(), Some(number))]);
        Ok(Box::new(OpenFile {
            disk: self.clone(),
            number,
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut parts = self.0.lock();
        parts.spend()?;
        let number = parts.find(path)?;
        Ok(parts.files[number].written.clone())
    }

    fn names(&self, _directory: &Path) -> io::Result<Vec<OsString>> {
        let mut parts = self.0.lock();
        parts.spend()?;
        let names = parts.names.keys().filter_map(|path| path.file_name());
        Ok(names.map(ToOwned::to_owned).collect())
    }

    fn read_link(&self, _path: &Path) -> io::Result<PathBuf> {
        Err(ErrorKind::InvalidInput.into())
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        let mut parts = self.0.lock();
        parts.spend()?;
        if parts.names.contains_key(link) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let number = parts.find(original)?;
        parts.rename(vec![(link.to_owned(), Some(number))]);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut parts = self.0.lock();
        parts.spend()?;
        let number = parts.find(from)?;
        parts.rename(vec![(from.to_owned(), None), (to.to_owned(), Some(number))]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut parts = self.0.lock();
        parts.spend()?;
        parts.find(path)?;
        parts.rename(vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        let mut parts = self.0.lock();
        parts.spend()?;
        if parts.syncs {
            parts.durable = parts.names.clone();
            parts.pending.clear();
            parts.collect();
        }
        Ok(())
    }

    fn now(&self) -> DateTime<Utc> {
        self.0.lock().wall
    }
}

struct OpenFile {
    disk: Disk,
    number: usize,
}

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut parts = self.disk.0.lock();
        parts.spend()?;
        if parts.is_full {
            return Err(ErrorKind::StorageFull.into());
        }
        let length = bytes.len().min(PIECE);
        let (piece, _) = bytes.split_at(length);
        parts.files[self.number].written.extend_from_slice(piece);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for OpenFile {
    fn sync(&mut self) -> io::Result<()> {
        let mut parts = self.disk.0.lock();
        parts.spend()?;
        if parts.syncs {
            let file = &mut parts.files[self.number];
            file.synced = file.written.len();
        }
        Ok(())
    }
}
