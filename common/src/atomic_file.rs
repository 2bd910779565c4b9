//! Replacing a file so that a crash at any moment leaves either the old or the new contents.

use std::io;
use std::path::Path;

/// Writes `contents` to `path` durably, readable only by the owner: temporary sibling, fsync,
/// rename, fsync of the directory.
pub fn write(path: &Path, contents: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, contents)?;
    std::fs::rename(temporary, path)
}
