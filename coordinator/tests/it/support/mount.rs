//! A small file system of its own; making one takes root.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted tmpfs, unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mount {
    path: PathBuf,
    _directory: TempDir,
}

impl Mount {
    /// Mounts a tmpfs of `size`.
    ///
    /// # Errors
    /// It is not allowed here; the text says why.
    pub(crate) fn tmpfs(size: &str) -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = directory.path().to_owned();
        let options = format!("size={size},mode=700");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(OsStr::new);
        run("mount", arguments.into_iter().chain([path.as_os_str()]))?;
        Ok(Self {
            path,
            _directory: directory,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn make_read_only(&self) {
        let arguments = [
            OsStr::new("-o"),
            OsStr::new("remount,ro"),
            self.path.as_os_str(),
        ];
        run("mount", arguments).expect("who mounts may remount");
    }

    /// Makes it read-only for whoever opens something from now on, until this is dropped: what is
    /// open for writing keeps a file system from becoming read-only as a whole.
    pub(crate) fn cover_read_only(&self) -> Cover<'_> {
        let path = self.path.as_os_str();
        run("mount", [OsStr::new("--bind"), path, path]).expect("who mounts may bind");
        let options = ["-o", "remount,bind,ro"].map(OsStr::new);
        run("mount", options.into_iter().chain([path])).expect("who mounts may remount");
        Cover { path: &self.path }
    }
}

/// A directory that is read-only; it is not when this is dropped.
#[derive(Debug)]
pub(crate) struct Cover<'a> {
    path: &'a Path,
}

impl Drop for Cover<'_> {
    fn drop(&mut self) {
        let uncovered = run("umount", [self.path.as_os_str()]);
        uncovered.expect("it was covered");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(reason) = run("umount", [OsStr::new("-l"), self.path.as_os_str()]) {
            super::say(&format!("{} stays mounted: {reason}", self.path.display()));
        }
    }
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
