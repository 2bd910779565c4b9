//! A disk without a disk: quick enough to try every way to damage a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use parking_lot::Mutex;

/// What one write takes.
const PART: usize = 400;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Files in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk {
    files: Arc<Mutex<Files>>,
    /// How many changes are left until the process that makes them is killed.
    left: Arc<Mutex<Option<u32>>>,
}

impl MemoryDisk {
    pub(crate) fn with_file(self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.lock().insert(path.into(), contents.into());
        self
    }

    pub(crate) fn without_file(self, path: &str) -> Self {
        self.files.lock().remove(Path::new(path));
        self
    }

    /// Returns all files as they are.
    pub(crate) fn files(&self) -> Files {
        self.files.lock().clone()
    }

    /// Returns another disk with the same files.
    pub(crate) fn copy(&self) -> Self {
        Self {
            files: Arc::new(Mutex::new(self.files())),
            left: Arc::default(),
        }
    }

    /// Lets so many changes more succeed, as if the process were killed then: what was written
    /// stays.
    pub(crate) fn kill_after(&self, changes: u32) {
        *self.left.lock() = Some(changes);
    }

    /// Lets another process use the disk; returns whether the one before had been killed.
    pub(crate) fn revive(&self) -> bool {
        self.left.lock().take() == Some(0)
    }

    fn change(&self) -> io::Result<()> {
        match &mut *self.left.lock() {
            Some(0) => Err(io::Error::other("the process was killed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl FileSystem for MemoryDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.change()?;
        let mut files = self.files.lock();
        if files.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        files.insert(path.to_owned(), Vec::new());
        Ok(Box::new(MemoryFile {
            path: path.to_owned(),
            disk: self.clone(),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let files = self.files.lock();
        files.get(path).cloned().ok_or(ErrorKind::NotFound.into())
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let files = self.files.lock();
        let inside = files.keys().filter(|path| path.parent() == Some(directory));
        Ok(inside
            .filter_map(|path| Some(path.file_name()?.to_owned()))
            .collect())
    }

    fn read_link(&self, _path: &Path) -> io::Result<PathBuf> {
        Err(ErrorKind::InvalidInput.into())
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.change()?;
        let mut files = self.files.lock();
        if files.contains_key(link) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let contents = files.get(original).cloned().ok_or(ErrorKind::NotFound)?;
        files.insert(link.to_owned(), contents);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change()?;
        let mut files = self.files.lock();
        let contents = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change()?;
        let removed = self.files.lock().remove(path);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        self.change()
    }
}

struct MemoryFile {
    path: PathBuf,
    disk: MemoryDisk,
}

impl Write for MemoryFile {
    /// Takes a part at a time, so that the process can also be killed in the middle.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.disk.change()?;
        let (buf, _) = buf.split_at(buf.len().min(PART));
        let mut files = self.disk.files.lock();
        let contents = files.get_mut(&self.path).ok_or(ErrorKind::NotFound)?;
        contents.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for MemoryFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.change()
    }
}
