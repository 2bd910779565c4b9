//! This machine's own agent, run in-process over the same protocol as any other.

use std::net::SocketAddr;
use std::path::Path;

use crate::config::Config;

/// The agents that run inside this process.
pub(super) struct LocalAgents;

/// Starts this machine's agent, and under `--dev` simulated ones where no runtime answers.
pub(super) async fn start(_config: &Config, _local: SocketAddr, _data_dir: &Path) -> LocalAgents {
    LocalAgents
}

impl LocalAgents {
    /// Lets the agents say goodbye and waits for them.
    pub(super) async fn stop(self) {}
}
