//! The few file operations that durability rests on, as a seam: tests put a recorder, a failing
//! disk or a simulated power loss behind it.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};

/// A file system, as far as replacing a file and finding it again needs one.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Creates a file for writing, readable only by the owner; an existing one is an error.
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// Returns the whole contents of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Returns the names in a directory, in any order.
    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>>;
    /// Returns where a symbolic link points; anything else is an error.
    fn read_link(&self, path: &Path) -> io::Result<PathBuf>;
    /// Gives the file `original` a second name; an existing `link` is an error.
    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()>;
    /// Renames a file, replacing what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
    /// Returns what time it is for what is written into files; a simulation has its own.
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A file that has been created and is written from its beginning to its end.
pub trait NewFile: io::Write + Send {
    /// Makes what was written so far durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The operating system's own.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl FileSystem for Disk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        platform::owner_only(&mut options);
        Ok(Box::new(options.open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        fs::read_link(path)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        fs::hard_link(original, link)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        platform::sync_directory(directory)
    }
}

impl NewFile for fs::File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Creates `directory` and what is missing above it, for the owner only, durably.
pub fn create_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let above = super::parent(directory);
    create_directory(above)?;
    match platform::create_directory(directory) {
        Ok(()) => platform::sync_directory(above),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
mod platform {
    use std::fs::{DirBuilder, File, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    use std::path::Path;

    pub(super) fn owner_only(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(directory)
    }

    /// Some network file systems cannot flush a directory and say so; more cannot be done there.
    pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
        match File::open(directory)?.sync_all() {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
                ) =>
            {
                Ok(())
            }
            done => done,
        }
    }
}

/// Files inherit their owner's access there, and a rename is durable without more.
#[cfg(not(unix))]
mod platform {
    use std::fs::OpenOptions;
    use std::io;
    use std::path::Path;

    pub(super) fn owner_only(_options: &mut OpenOptions) {}

    pub(super) fn create_directory(directory: &Path) -> io::Result<()> {
        std::fs::create_dir(directory)
    }

    #[expect(clippy::unnecessary_wraps, reason = "the other platform can fail")]
    pub(super) fn sync_directory(_directory: &Path) -> io::Result<()> {
        Ok(())
    }
}
