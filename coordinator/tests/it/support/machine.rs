//! A machine with a real agent in front of a scripted runtime.

use std::time::Duration;

use ollama_agent::{Agent, AgentError, Control};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::api::Api;

/// A runtime and the state of an agent, whose processes come and go.
pub(crate) struct AgentMachine {
    api: Api,
    pub(crate) config: ollama_agent::Config,
    running: Option<(Control, JoinSet<Result<(), AgentError>>)>,
    pub(crate) runtime: ScriptedRuntime,
    _state_dir: TempDir,
}

impl AgentMachine {
    pub(crate) async fn new(api: Api, name: &str) -> Self {
        Self::with(api, name, RuntimeScript::default()).await
    }

    pub(crate) async fn with(api: Api, name: &str, script: RuntimeScript) -> Self {
        let runtime = ScriptedRuntime::start(script).await;
        let runtime = runtime.expect("a port is free");
        let state_dir = tempfile::tempdir().expect("there is room for a directory");
        let mut config = ollama_agent::Config::new(
            BaseUrl::from_addr(api.addr()),
            BaseUrl::from_addr(runtime.addr()),
            state_dir.path().to_owned(),
        );
        name.clone_into(&mut config.machine_name);
        config.register_retry_interval = Duration::from_millis(200);
        config.timing.first_retry = Duration::from_millis(50);
        Self {
            api,
            config,
            running: None,
            runtime,
            _state_dir: state_dir,
        }
    }

    pub(crate) fn start(&mut self) {
        let agent = Agent::open(self.config.clone(), Shutdown::default());
        let agent = agent.expect("the state directory is its own");
        let control = agent.control();
        let mut running = JoinSet::new();
        running.spawn(agent.run());
        self.running = Some((control, running));
    }

    /// Returns what steers the agent that runs.
    pub(crate) fn control(&self) -> &Control {
        &self.running.as_ref().expect("it runs").0
    }

    /// Waits until requests come here.
    pub(crate) async fn wait_until_routable(&self) {
        let name = &self.config.machine_name;
        let is_there = |agents: &Vec<AgentView>| {
            let mut agents = agents.iter();
            agents.any(|agent| agent.machine_name == *name && agent.routable)
        };
        wait_for("routable", PATIENCE, || self.api.agents(), is_there).await;
    }

    /// Stops the agent, which says goodbye.
    pub(crate) async fn stop(&mut self) {
        let (control, mut running) = self.running.take().expect("it runs");
        control.quit();
        let ended = running.join_next().await.expect("it was started");
        ended.expect("it does not panic").expect("it ends well");
    }

    /// Ends the agent without a goodbye.
    pub(crate) async fn kill(&mut self) {
        let (_, mut running) = self.running.take().expect("it runs");
        running.shutdown().await;
    }
}
