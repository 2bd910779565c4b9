//! A disk without a disk: quick enough to try every way to damage a file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use parking_lot::Mutex;

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Files in memory; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryDisk {
    files: Arc<Mutex<Files>>,
}

impl MemoryDisk {
    pub(crate) fn with_file(self, path: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.lock().insert(path.into(), contents.into());
        self
    }

    /// Returns all files as they are.
    pub(crate) fn files(&self) -> Files {
        self.files.lock().clone()
    }
}

impl FileSystem for MemoryDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
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
        let mut files = self.files.lock();
        if files.contains_key(link) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let contents = files.get(original).cloned().ok_or(ErrorKind::NotFound)?;
        files.insert(link.to_owned(), contents);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.files.lock();
        let contents = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let removed = self.files.lock().remove(path);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct MemoryFile {
    path: PathBuf,
    disk: MemoryDisk,
}

impl Write for MemoryFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
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
        Ok(())
    }
}
