//! Start at login on Windows: a value of the user's own `Run` key, by the system's own tool.

use std::io;
use std::process::{Command, Stdio};

use ollama_coordinator_common::service::command_line;

use crate::autostart::Start;

const KEY: &str = r"HKCU\Software\Microsoft\Windows\CurrentVersion\Run";
const VALUE: &str = "OllamaAgent";

#[expect(
    clippy::unnecessary_wraps,
    reason = "elsewhere a user may have no place for it"
)]
pub(crate) fn is_on() -> Option<bool> {
    Some(reg(&["query", KEY, "/v", VALUE]).is_ok())
}

pub(crate) fn turn_on(start: &Start) -> io::Result<()> {
    let words = start.words();
    let words = words.iter().map(|word| command_line::quoted(word));
    let line = words.collect::<Vec<_>>().join(" ");
    reg(&["add", KEY, "/v", VALUE, "/t", "REG_SZ", "/d", &line, "/f"])
}

pub(crate) fn turn_off() -> io::Result<()> {
    if is_on() == Some(false) {
        return Ok(());
    }
    reg(&["delete", KEY, "/v", VALUE, "/f"])
}

fn reg(arguments: &[&str]) -> io::Result<()> {
    let quiet = Stdio::null;
    let ended = Command::new("reg.exe")
        .args(arguments)
        .stdin(quiet())
        .stdout(quiet())
        .stderr(quiet())
        .status()?;
    if ended.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("reg.exe ended with {ended}")))
    }
}
