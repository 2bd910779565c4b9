//! The agent's real binary, as a process that can be killed and started again as the same agent.

use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::say;

/// The home directory of an agent's processes, one after another.
#[derive(Debug)]
pub(crate) struct AgentHome {
    home: TempDir,
    name: String,
}

/// A running agent, killed when this is dropped; a test that fails shows what it wrote.
#[derive(Debug)]
pub(crate) struct AgentProcess {
    child: Child,
    log: PathBuf,
    name: String,
}

impl AgentHome {
    /// Makes a home for an agent that is called `name`.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            home: tempfile::tempdir().expect("there is room for a directory"),
            name: name.to_owned(),
        }
    }

    /// Starts the agent on the host where this thread is, as one does by hand.
    pub(crate) fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> AgentProcess {
        let log = self.home.path().join("stderr.log");
        let stderr = std::fs::File::create(&log).expect("the home is writable");
        let coordinator = PathBuf::from(env!("CARGO_BIN_EXE_ollama-coordinator"));
        let binary = coordinator.with_file_name("ollama-agent");
        assert!(
            binary.exists(),
            "{} is missing: cargo build --workspace --bins",
            binary.display()
        );
        let child = Command::new(binary)
            .args(arguments)
            .env_clear()
            .env("HOME", self.home.path())
            .env("HOSTNAME", &self.name)
            .env("OLLAMA_AGENT_PANEL", "off")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        AgentProcess {
            child,
            log,
            name: self.name.clone(),
        }
    }
}

impl AgentProcess {
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.id()).expect("process ids are small");
        let pid = Pid::from_raw(pid).expect("it is not 0");
        kill_process(pid, signal).expect("it is our child");
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&mut self) {
        self.child.start_kill().expect("it is our child");
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let wrote = std::fs::read_to_string(&self.log).unwrap_or_default();
            say(&format!("The agent {} wrote:\n{wrote}", self.name));
        }
    }
}
