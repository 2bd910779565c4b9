//! Start at login where it is a file in a directory: on Linux and macOS.

use std::io;
use std::path::PathBuf;

use ollama_coordinator_common::atomic_file;

use super::autostart_text::{file, text};
use crate::autostart::Start;

pub(crate) fn is_on() -> Option<bool> {
    file().map(|file| file.exists())
}

pub(crate) fn turn_on(start: &Start) -> io::Result<()> {
    let file = place()?;
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    atomic_file::write(&file, text(&start.words()).as_bytes())
}

pub(crate) fn turn_off() -> io::Result<()> {
    match std::fs::remove_file(place()?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn place() -> io::Result<PathBuf> {
    file().ok_or_else(|| io::Error::other("this user has no home directory"))
}
