//! Replacing a file so that a crash at any moment leaves either the old or the new contents.
//!
//! The one recipe: temporary sibling, write, fsync, keep the previous file as `.bak` where asked,
//! rename, fsync of the directory. What is in the files is the caller's business.

pub mod file_system;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use self::file_system::{Disk, FileSystem, NewFile};

/// Temporary names tried before giving up; each failed removal of a stale one costs one.
const MAX_TEMPORARY_NAMES: u32 = 1_000;
/// Symbolic links followed before a chain of them counts as a loop.
const MAX_LINKS: usize = 40;

/// Writes `contents` to `path` durably, readable only by the owner.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    replace(&Disk, path, contents, Backup::Discard)?;
    Ok(())
}

/// What becomes of the file that is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backup {
    /// It stays beside the new one, as `<name>.bak`, where the file system has hard links.
    Keep,
    /// It goes.
    Discard,
}

/// What became of it.
#[derive(Debug)]
pub enum Previous {
    /// It is `<name>.bak`.
    Kept,
    /// There was none.
    Missing,
    /// It could not be kept; the new file is durable all the same.
    NotKept(io::Error),
    /// Nobody asked for it.
    Discarded,
}

/// Replaces the file at `path`, or the one a symbolic link there leads to, by `contents`.
///
/// Only after `Ok` are the contents durable. After an error the file holds the old or the new
/// contents, whole, and no temporary file is left as far as that was possible.
///
/// # Errors
/// Says which step failed, with the operating system's reason as the source.
pub fn replace(
    fs: &dyn FileSystem,
    path: &Path,
    contents: &[u8],
    backup: Backup,
) -> Result<Previous, ReplaceError> {
    let target = resolve(fs, path);
    let directory = parent(&target);
    let temporary = write_temporary(fs, &target, contents)?;

    let previous = match backup {
        Backup::Keep => keep_previous(fs, &target, &temporary),
        Backup::Discard => Previous::Discarded,
    };
    if let Err(source) = fs.rename(&temporary, &target) {
        discard(fs, &temporary);
        let is_mount_point = matches!(
            source.kind(),
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
        );
        let attempted = if is_mount_point {
            "replace a file that is a mount point of its own (mount its directory instead)"
        } else {
            "rename the temporary file to"
        };
        return Err(ReplaceError::new(attempted, &target, source));
    }
    fs.sync_directory(directory)
        .map_err(|source| ReplaceError::new("flush the directory to disk", directory, source))?;
    Ok(previous)
}

/// Removes what crashed writers of `path` left behind; returns how many files that were.
///
/// The caller makes sure that nobody is writing `path` meanwhile.
pub fn remove_stale_temporaries(fs: &dyn FileSystem, path: &Path) -> io::Result<usize> {
    let target = resolve(fs, path);
    let directory = parent(&target);
    let prefix = temporary_prefix(&target);
    let mut removed = 0;
    for name in fs.names(directory)? {
        if name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            fs.remove_file(&directory.join(name))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Checks that files can be made beside `path`, by making one and removing it.
pub fn check_writable(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    let (probe, file) = create_temporary(fs, &resolve(fs, path))?;
    drop(file);
    fs.remove_file(&probe)
}

/// Returns where `path` leads when it is a symbolic link, whether or not something is there.
pub fn resolve(fs: &dyn FileSystem, path: &Path) -> PathBuf {
    let mut resolved = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs.read_link(&resolved) else {
            break;
        };
        resolved = parent(&resolved).join(link);
    }
    resolved
}

/// Returns the path beside `path` whose name is `path`'s with `suffix` appended.
pub fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = file_name(path).to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Returns the directory that holds `path`.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) | None => Path::new("."),
    }
}

/// One step of replacing a file failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to {attempted}: {}", path.display())]
pub struct ReplaceError {
    /// What was attempted.
    pub attempted: &'static str,
    /// On which file or directory.
    pub path: PathBuf,
    /// Why it failed.
    pub source: io::Error,
}

impl ReplaceError {
    fn new(attempted: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            attempted,
            path: path.to_owned(),
            source,
        }
    }
}

impl From<ReplaceError> for io::Error {
    fn from(error: ReplaceError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Makes a durable temporary sibling of `target`. After an error it is gone: a second fsync of
/// the same file may succeed although the first one lost data, so every try gets a new file.
fn write_temporary(
    fs: &dyn FileSystem,
    target: &Path,
    contents: &[u8],
) -> Result<PathBuf, ReplaceError> {
    let (temporary, mut file) = create_temporary(fs, target)
        .map_err(|source| ReplaceError::new("create a temporary file beside", target, source))?;
    let written = file
        .write_all(contents)
        .map_err(|source| ReplaceError::new("write", &temporary, source))
        .and_then(|()| {
            file.sync()
                .map_err(|source| ReplaceError::new("flush to disk", &temporary, source))
        });
    drop(file);
    match written {
        Ok(()) => Ok(temporary),
        Err(error) => {
            discard(fs, &temporary);
            Err(error)
        }
    }
}

fn create_temporary(fs: &dyn FileSystem, target: &Path) -> io::Result<(PathBuf, Box<dyn NewFile>)> {
    let prefix = temporary_prefix(target);
    for attempt in 0..MAX_TEMPORARY_NAMES {
        let mut name = prefix.clone();
        name.push(format!("{}.{attempt}", std::process::id()));
        let temporary = target.with_file_name(name);
        match fs.create_new(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "too many temporary files are left from earlier attempts",
    ))
}

/// Links the current file as `.bak`, through a name of its own so that the older `.bak` stays
/// until the newer one is there.
fn keep_previous(fs: &dyn FileSystem, target: &Path, temporary: &Path) -> Previous {
    let link = sibling(temporary, ".bak");
    match fs.hard_link(target, &link) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Previous::Missing,
        Err(error) => return Previous::NotKept(error),
    }
    let renamed = fs.rename(&link, &sibling(target, ".bak"));
    // Renaming onto another link of the same file succeeds and does nothing, so the link may be
    // there in either case.
    discard(fs, &link);
    match renamed {
        Ok(()) => Previous::Kept,
        Err(error) => Previous::NotKept(error),
    }
}

/// Removes a temporary file, best effort: the next start removes what stays.
fn discard(fs: &dyn FileSystem, temporary: &Path) {
    if let Err(error) = fs.remove_file(temporary)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %temporary.display(), %error, "Temporary file was left behind");
    }
}

fn temporary_prefix(target: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(file_name(target));
    prefix.push(".tmp.");
    prefix
}

fn file_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or(OsStr::new("file"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::file_system::create_directory;
    use super::*;

    #[test]
    fn file_is_replaced_as_a_whole_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.json");

        write(&path, b"a long first version").unwrap();
        write(&path, b"short").unwrap();

        assert_eq!(fs::read(&path).unwrap(), b"short");
        assert_eq!(names(directory.path()), ["identity.json"]);
    }

    #[test]
    fn previous_file_is_kept_where_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let replace = |contents| replace(&Disk, &path, contents, Backup::Keep).unwrap();

        assert!(matches!(replace(b"1"), Previous::Missing));
        assert!(matches!(replace(b"2"), Previous::Kept));
        assert!(matches!(replace(b"3"), Previous::Kept));

        assert_eq!(fs::read(&path).unwrap(), b"3");
        assert_eq!(fs::read(sibling(&path, ".bak")).unwrap(), b"2");
        assert_eq!(names(directory.path()), ["state", "state.bak"]);
    }

    #[test]
    fn backup_outlives_the_file_it_was_made_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        fs::write(sibling(&path, ".bak"), "good").unwrap();

        replace(&Disk, &path, b"new", Backup::Keep).unwrap();

        assert_eq!(fs::read(sibling(&path, ".bak")).unwrap(), b"good");
    }

    #[test]
    fn temporary_file_of_a_crashed_run_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let stale = format!(".state.tmp.{}.0", std::process::id());
        fs::write(directory.path().join(&stale), "stale").unwrap();
        fs::write(directory.path().join("state.tmp.1"), "somebody else's").unwrap();

        write(&path, b"new").unwrap();
        assert_eq!(
            names(directory.path()),
            [stale.as_str(), "state", "state.tmp.1"]
        );
        assert_eq!(remove_stale_temporaries(&Disk, &path).unwrap(), 1);

        assert_eq!(names(directory.path()), ["state", "state.tmp.1"]);
    }

    #[test]
    fn missing_directory_is_an_error_that_says_what_was_attempted() {
        let directory = tempfile::tempdir().unwrap();

        let error = write(&directory.path().join("missing/state"), b"new").unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(
            error
                .to_string()
                .starts_with("failed to create a temporary file"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn files_and_directories_are_for_the_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/secret");

        create_directory(parent(&path)).unwrap();
        create_directory(parent(&path)).unwrap();
        write(&path, b"secret").unwrap();

        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(parent(&path)), 0o700);
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_followed_and_loops_end() {
        use std::os::unix::fs::symlink;
        let directory = tempfile::tempdir().unwrap();
        let at = |name| directory.path().join(name);
        symlink("hop", at("link")).unwrap();
        symlink(at("target"), at("hop")).unwrap();
        symlink("loop", at("loop")).unwrap();

        write(&at("link"), b"new").unwrap();
        resolve(&Disk, &at("loop"));

        assert_eq!(fs::read(at("target")).unwrap(), b"new");
        assert!(at("link").is_symlink());
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = Disk
            .names(directory)
            .unwrap()
            .into_iter()
            .map(|name| name.into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}
