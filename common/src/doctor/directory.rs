//! Whether a directory can be written, and how much, found out without writing.

use std::io;
use std::path::Path;

/// Checks that files can be made in `directory`, or that it can be made where it is missing.
///
/// # Errors
/// It cannot be written, or it is no directory.
pub fn check_writable(directory: &Path) -> io::Result<()> {
    match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => permitted(directory),
        Ok(_file) => Err(io::ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match directory.parent() {
            Some(parent) if parent.as_os_str().is_empty() => check_writable(Path::new(".")),
            Some(parent) => check_writable(parent),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Returns how many bytes can be written to the disk of `directory`, where the system tells.
pub fn free_bytes(directory: &Path) -> Option<u64> {
    let existing = directory.ancestors().find(|path| path.exists())?;
    free(existing)
}

#[cfg(unix)]
fn free(directory: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free(_directory: &Path) -> Option<u64> {
    None
}

#[cfg(unix)]
fn permitted(directory: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};

    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(not(unix))]
fn permitted(directory: &Path) -> io::Result<()> {
    if directory.metadata()?.permissions().readonly() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_is_writable_or_can_be_made() {
        let directory = tempfile::tempdir().unwrap();

        check_writable(directory.path()).unwrap();
        check_writable(&directory.path().join("new/and/deeper")).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn file_in_its_place_is_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();

        for path in [file.clone(), file.join("below")] {
            let error = check_writable(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{error}");
        }
    }
}
