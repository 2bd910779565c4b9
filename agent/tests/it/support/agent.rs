//! The agent in this process, with delays short enough for tests.

use std::path::Path;
use std::time::Duration;

use ollama_agent::config::Timing;
use ollama_agent::status::AgentStatus;
use ollama_agent::{Agent, AgentError, Config, Control};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::server::Reserved;
use super::{DEADLINE, wait_for};

/// Returns the configuration of an agent whose runtime is missing.
pub(crate) fn config(coordinator: BaseUrl, state_dir: &Path) -> Config {
    let nowhere = Reserved::new().url();
    Config {
        register_retry_interval: Duration::from_millis(50),
        timing: Timing {
            first_retry: Duration::from_millis(10),
            refused_retry: Duration::from_millis(20),
            probe_running: Duration::from_millis(20),
            probe_missing: Duration::from_millis(20),
            metrics: Duration::from_millis(50),
            tunnel_retry: Duration::from_millis(10),
            ..Timing::default()
        },
        ..Config::new(coordinator, nowhere, state_dir.to_owned())
    }
}

/// A running agent.
#[derive(Debug)]
pub(crate) struct TestAgent {
    control: Control,
    status: watch::Receiver<AgentStatus>,
    running: JoinSet<Result<(), AgentError>>,
    _state_dir: Option<TempDir>,
}

impl TestAgent {
    /// Starts an agent with a state directory of its own and a missing runtime.
    pub(crate) fn start(coordinator: BaseUrl) -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let agent = Self::start_with(config(coordinator, state_dir.path()));
        Self {
            _state_dir: Some(state_dir),
            ..agent
        }
    }

    pub(crate) fn start_with(config: Config) -> Self {
        let agent = Agent::open(config, Shutdown::default()).unwrap();
        let control = agent.control();
        let mut running = JoinSet::new();
        running.spawn(agent.run());
        Self {
            status: control.status(),
            control,
            running,
            _state_dir: None,
        }
    }

    pub(crate) async fn wait_for(
        &mut self,
        condition: impl FnMut(&AgentStatus) -> bool,
    ) -> AgentStatus {
        wait_for(&mut self.status, condition).await
    }

    /// Returns what steers it.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Waits until the agent ends by itself.
    pub(crate) async fn ended(mut self) -> Result<(), AgentError> {
        let ended = tokio::time::timeout(DEADLINE, self.running.join_next()).await;
        ended
            .expect("the agent ends in time")
            .expect("it was running")
            .unwrap()
    }

    /// Asks it to stop; asked again, at once.
    pub(crate) fn ask_to_stop(&self) {
        self.control.quit();
    }

    pub(crate) async fn stop(self) -> Result<(), AgentError> {
        self.control.quit();
        self.ended().await
    }
}
