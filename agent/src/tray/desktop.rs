//! What the agent asks of the desktop: to show a page, to hold a text in the clipboard.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use ollama_coordinator_common::atomic_file;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::platform;

/// Programs for the clipboard take it at once, or hang.
const CLIPBOARD_TIMEOUT: Duration = Duration::from_secs(2);

/// Shows a page or a file.
pub(super) fn open(target: impl AsRef<OsStr>) {
    let mut opener = platform::opener();
    opener
        .arg(target)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Err(error) = opener.spawn() {
        let program = opener.as_std().get_program().display();
        tracing::warn!(%error, %program, "Nothing here shows pages");
    }
}

/// Puts a text into the clipboard; where no program does that, into `file`, and shows that.
pub(super) async fn copy(text: &str, file: &Path) {
    for clipboard in platform::clipboards() {
        let taken = tokio::time::timeout(CLIPBOARD_TIMEOUT, pass(clipboard, text)).await;
        if taken.is_ok_and(|taken| taken) {
            return;
        }
    }
    let (target, text) = (file.to_owned(), text.to_owned());
    let writing = move || atomic_file::write(&target, text.as_bytes());
    let written = tokio::task::spawn_blocking(writing).await;
    match written.expect("writing a file does not panic") {
        Ok(()) => open(file),
        Err(error) => tracing::warn!(%error, "Nothing here takes a text to copy"),
    }
}

/// Returns whether the program took the text.
async fn pass(mut program: Command, text: &str) -> bool {
    let started = program
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let Ok(mut program) = started else {
        return false;
    };
    let mut input = program.stdin.take().expect("its input is a pipe");
    let written = input.write_all(&platform::clipboard_bytes(text)).await;
    drop(input);
    written.is_ok() && program.wait().await.is_ok_and(|status| status.success())
}
