//! The agent as a process of its own.

use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::{Child, Command};

use super::DEADLINE;

/// Returns the agent's command with an environment that says nothing about it.
pub(crate) fn command(state_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ollama-agent"));
    command
        .env_clear()
        .env("PATH", "")
        .env("OLLAMA_AGENT_STATE_DIR", state_dir)
        .env("OLLAMA_HOST", "127.0.0.1:1")
        .env("OLLAMA_AGENT_CONFIG", state_dir.join("settings.toml"))
        .env("OLLAMA_AGENT_PANEL", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs the process to its end.
pub(crate) async fn ended(child: Child) -> Output {
    let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    ended.expect("the process ends in time").unwrap()
}

/// Returns what the process wrote to standard error.
pub(crate) fn messages(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
