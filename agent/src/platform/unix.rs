//! Files for the owner only, and what a terminal tells, on every Unix.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use crate::face::Output;

/// Makes `dir` and its parents, readable by the owner only; leaves an existing one as it is.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Takes the file at `path` away from everybody but its owner.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// Returns whether a person reads what this process writes.
pub(crate) fn output() -> Output {
    let by_terminal =
        io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal();
    if by_terminal {
        Output::Terminal
    } else {
        Output::Unread
    }
}

/// Does nothing: only Windows opens a window for a program that nobody started in one.
pub(crate) fn leave_console() {}

/// Returns what the clipboard's programs take for a text.
pub(crate) fn clipboard_bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}
