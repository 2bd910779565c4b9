//! A program under test: started, metered and stopped; and what all of them use together.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const STOP_WITHIN: Duration = Duration::from_secs(30);

/// A running program; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    /// Starts `command`, silent and without this process's own settings for the product.
    pub(crate) fn start(mut command: Command) -> anyhow::Result<Self> {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OLLAMA_") {
                command.env_remove(name);
            }
        }
        let child = command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("cannot start {}", command.as_std().get_program().display())
            })?;
        let pid = child.id().context("the program has ended already")?;
        Ok(Self { child, pid })
    }

    /// Returns the processor time it and its children have used.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&format!("/proc/{}/stat", self.pid))
    }

    /// Returns its resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        timeout(STOP_WITHIN, self.child.wait())
            .await
            .context("the program did not stop")??;
        Ok(())
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill the program")
    }
}

/// Returns the processor time of this process and of everything it has started.
pub(crate) fn tree_cpu() -> Duration {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    let running: Duration = children
        .flat_map(|pids| {
            let stat = |pid: &str| cpu_of(&format!("/proc/{pid}/stat"));
            pids.split_ascii_whitespace().map(stat).collect::<Vec<_>>()
        })
        .sum();
    cpu_of("/proc/self/stat") + running
}

/// Returns so many clock ticks as a time.
pub(crate) fn ticks(ticks: u64) -> Duration {
    Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second()).unwrap_or(100)
}

/// Reads user and system time, of the process and of its children that have ended.
fn cpu_of(stat: &str) -> Duration {
    let text = fs::read_to_string(stat).unwrap_or_default();
    // The name before the last parenthesis may hold anything.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = after_name.split_ascii_whitespace().skip(11).take(4);
    ticks(times.filter_map(|field| field.parse::<u64>().ok()).sum())
}
