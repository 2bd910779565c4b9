//! The real disk, with a record of what was asked of it, and failures where a test wants them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator_common::atomic_file::file_system::{Disk, FileSystem, NewFile};
use parking_lot::Mutex;

/// What is asked of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    Create,
    Write,
    SyncFile,
    Read,
    List,
    Link,
    Rename,
    Remove,
    SyncDirectory,
}

/// The real disk under observation; clones share record and script.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScriptedDisk {
    script: Arc<Mutex<Script>>,
}

#[derive(Debug, Default)]
struct Script {
    record: Vec<(Operation, PathBuf)>,
    failing: BTreeMap<Operation, i32>,
}

impl ScriptedDisk {
    /// Lets `operation` fail with the operating system's error `errno` until [`Self::heal`].
    pub(crate) fn fail(&self, operation: Operation, errno: i32) {
        self.script.lock().failing.insert(operation, errno);
    }

    pub(crate) fn heal(&self) {
        self.script.lock().failing.clear();
    }

    /// Returns what was asked since the last call.
    pub(crate) fn take_record(&self) -> Vec<(Operation, PathBuf)> {
        std::mem::take(&mut self.script.lock().record)
    }

    fn on(&self, operation: Operation, path: &Path) -> io::Result<()> {
        let mut script = self.script.lock();
        script.record.push((operation, path.to_owned()));
        match script.failing.get(&operation) {
            Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
            None => Ok(()),
        }
    }
}

impl FileSystem for ScriptedDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.on(Operation::Create, path)?;
        Ok(Box::new(ScriptedFile {
            file: Disk.create_new(path)?,
            path: path.to_owned(),
            disk: self.clone(),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.on(Operation::Read, path)?;
        Disk.read(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.on(Operation::List, directory)?;
        Disk.names(directory)
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        Disk.read_link(path)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.on(Operation::Link, link)?;
        Disk.hard_link(original, link)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.on(Operation::Rename, to)?;
        Disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.on(Operation::Remove, path)?;
        Disk.remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.on(Operation::SyncDirectory, directory)?;
        Disk.sync_directory(directory)
    }
}

struct ScriptedFile {
    file: Box<dyn NewFile>,
    path: PathBuf,
    disk: ScriptedDisk,
}

impl Write for ScriptedFile {
    /// Writes half before a failure, as a disk that fills up does.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.disk.on(Operation::Write, &self.path) {
            let (half, _) = buf.split_at(buf.len() / 2);
            self.file.write_all(half)?;
            return Err(error);
        }
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for ScriptedFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.on(Operation::SyncFile, &self.path)?;
        self.file.sync()
    }
}
