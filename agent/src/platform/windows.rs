//! Windows: a user's profile is private already, so nothing is restricted further.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::TcpStream;

use crate::system::GpuReading;

/// Makes `dir` and its parents; inside a user's profile they inherit its restrictions.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)
}

/// Does nothing: the file inherits its directory's restrictions.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(crate) fn make_private(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Returns nothing: the system offers no listing that names only what can run models.
pub(crate) fn graphics_cards() -> Option<Vec<GpuReading>> {
    None
}

/// Does nothing: the system has no such settings for one connection.
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it may fail")]
pub(crate) fn keep_little_unsent(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Returns nothing: its variables are those of the user, which this process has too.
pub(crate) fn ollama_service_host() -> Option<String> {
    None
}

/// Returns nothing: services are not files here.
pub(crate) fn service_entries() -> Vec<PathBuf> {
    Vec::new()
}
