//! A program under test: started, metered and stopped; and what all of them use together.

use std::fs::{self, File};
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
    pub(crate) fn start(command: Command) -> anyhow::Result<Self> {
        Self::spawn(command, Stdio::null(), Stdio::null())
    }

    /// Like [`Self::start`], with what it says in `log`.
    pub(crate) fn start_logged(command: Command, log: &File) -> anyhow::Result<Self> {
        Self::spawn(command, log.try_clone()?.into(), log.try_clone()?.into())
    }

    fn spawn(mut command: Command, output: Stdio, errors: Stdio) -> anyhow::Result<Self> {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("OLLAMA_") {
                command.env_remove(name);
            }
        }
        let child = command
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| {
                format!("cannot start {}", command.as_std().get_program().display())
            })?;
        let pid = child.id().context("the program has ended already")?;
        Ok(Self { child, pid })
    }

    /// Returns the processor time it and everything it has started have used.
    pub(crate) fn cpu(&self) -> Duration {
        tree(self.pid).into_iter().map(cpu_of).sum()
    }

    /// Returns the resident memory of it and of everything it has started, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        tree(self.pid).into_iter().map(memory_of).sum()
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns how many bytes it has had written to disks.
    pub(crate) fn written(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.pid)).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        line.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
    }

    /// Returns whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        signal(self.pid, Signal::TERM);
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

impl Drop for Process {
    /// What it has started outlives it when it is killed.
    fn drop(&mut self) {
        if !self.has_ended() {
            for pid in tree(self.pid) {
                signal(pid, Signal::KILL);
            }
        }
    }
}

/// Returns the processor time of this process and of everything it has started.
pub(crate) fn tree_cpu() -> Duration {
    tree(std::process::id()).into_iter().map(cpu_of).sum()
}

/// Returns a process and everything below it.
fn tree(root: u32) -> Vec<u32> {
    let mut pids = vec![root];
    let mut at = 0;
    while let Some(pid) = pids.get(at) {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        let threads: Vec<_> = threads.into_iter().flatten().flatten().collect();
        for thread in threads {
            let children = fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            pids.extend(
                children
                    .split_ascii_whitespace()
                    .flat_map(str::parse::<u32>),
            );
        }
        at += 1;
    }
    pids
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may have ended just now.
        kill_process(pid, signal).ok();
    }
}

/// Returns so many clock ticks as a time.
pub(crate) fn ticks(ticks: u64) -> Duration {
    Duration::from_secs(ticks) / u32::try_from(clock_ticks_per_second()).unwrap_or(100)
}

/// Reads user and system time, of the process and of its children that have ended.
fn cpu_of(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before the last parenthesis may hold anything.
    let after_name = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let times = after_name.split_ascii_whitespace().skip(11).take(4);
    ticks(times.filter_map(|field| field.parse::<u64>().ok()).sum())
}

fn memory_of(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
