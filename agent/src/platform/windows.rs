//! Windows: a user's profile is private already, so nothing is restricted further; consoles.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::TcpStream;
use tokio::process::Command;
use windows_sys::Win32::System::Console::{FreeConsole, GetConsoleProcessList};

use crate::face::Output;
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

/// Returns whether a person reads what this process writes: in a console that others share, such as
/// the shell it was started from. One of its own was opened by Windows, for nobody.
pub(crate) fn output() -> Output {
    let mut processes = [0; 2];
    #[expect(unsafe_code, reason = "nothing else tells who shares the console")]
    // SAFETY: the buffer holds as many process ids as the call is told.
    let sharing = unsafe { GetConsoleProcessList(processes.as_mut_ptr(), 2) };
    if sharing > 1 {
        Output::Terminal
    } else {
        Output::Unread
    }
}

/// Leaves the console, so that one which Windows opened for this process alone goes away.
pub(crate) fn leave_console() {
    #[expect(unsafe_code, reason = "nothing else leaves a console")]
    // SAFETY: the call takes nothing; writing to a console that is gone is an error, no fault.
    let left = unsafe { FreeConsole() };
    if left == 0 {
        tracing::debug!("There was no console to leave");
    }
}

/// Returns the program that shows a page or a file as the user wants it.
pub(crate) fn opener() -> Command {
    let mut command = Command::new("rundll32.exe");
    command.arg("url.dll,FileProtocolHandler");
    command
}

/// Returns the program that puts what it reads into the clipboard.
pub(crate) fn clipboards() -> Vec<Command> {
    vec![Command::new("clip.exe")]
}

/// Returns what the clipboard's program takes for a text: UTF-16 with a byte order mark, or it takes
/// it for the console's own encoding.
pub(crate) fn clipboard_bytes(text: &str) -> Vec<u8> {
    let marked = std::iter::once(0xfeff).chain(text.encode_utf16());
    marked.flat_map(u16::to_le_bytes).collect()
}
