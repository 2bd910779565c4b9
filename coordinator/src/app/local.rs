//! This machine's own agent, run in-process over the same protocol as any other; under `--dev`,
//! where no runtime answers, simulated runtimes with an agent each.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use ollama_agent::AgentError;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::http::{HttpClient, HttpTimeouts};
use ollama_coordinator_common::probe::{ANSWER_LIMIT, probe};
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;

use crate::banner::{Banner, from_this_machine};
use crate::config::Config;

/// How many runtimes are simulated.
const SIMULATED: u32 = 2;
/// How long the agents may take to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(3);
const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_millis(500),
    answer: Duration::from_millis(1_500),
};

/// The agents that run inside this process.
#[derive(Default)]
pub(super) struct LocalAgents {
    tasks: Tasks,
    shutdown: Shutdown,
    simulated: Vec<ScriptedRuntime>,
}

/// Starts this machine's agent, and under `--dev` simulated ones where no runtime answers.
pub(super) async fn start(config: &Config, local: SocketAddr, data_dir: &Path) -> LocalAgents {
    let mut agents = LocalAgents::default();
    let banner = Banner::new(config);
    if config.no_local_agent {
        return agents;
    }
    let coordinator = BaseUrl::from_addr(from_this_machine(local));
    let state_dir = data_dir.join("agent");
    let agent = match ollama_agent::Config::for_local_coordinator(coordinator.clone(), state_dir) {
        Ok(agent) => agent,
        Err(error) => {
            tracing::error!(%error, "This machine's own agent cannot start");
            return agents;
        }
    };
    let client = HttpClient::new(agent.runtime.clone(), TIMEOUTS);
    let found = probe(&mut client.with_answer_limit(ANSWER_LIMIT)).await;
    if config.dev && found.is_err() {
        agents.simulate(&coordinator, data_dir).await;
        banner.simulating(&coordinator, &agent.runtime, agents.simulated.len());
    } else {
        match &found {
            Ok(report) => banner.runtime_found(&coordinator, &agent.runtime, report),
            Err(error) => banner.runtime_missing(&agent.runtime, error),
        }
        agents.spawn(agent);
    }
    agents
}

impl LocalAgents {
    /// Lets the agents say goodbye and waits for them.
    pub(super) async fn stop(self) {
        self.shutdown.trigger();
        if let Err(remaining) = self.tasks.join(GOODBYE).await {
            tracing::warn!(%remaining, "This machine's own agent did not stop in time");
        }
        for runtime in self.simulated {
            runtime.stop().await;
        }
    }

    fn spawn(&self, agent: ollama_agent::Config) {
        let shutdown = self.shutdown.clone();
        self.tasks.spawn("local agent", OnExit::Log, async move {
            match ollama_agent::run(agent, shutdown).await {
                Err(AgentError::AlreadyRunning { pid, .. }) => {
                    tracing::info!(
                        pid,
                        "This machine's agent runs already, as a process of its own"
                    );
                    Ok(())
                }
                ended => ended,
            }
        });
    }

    async fn simulate(&mut self, coordinator: &BaseUrl, data_dir: &Path) {
        for number in 1..=SIMULATED {
            let runtime = match ScriptedRuntime::start(RuntimeScript::dev_defaults(number)).await {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(%error, "A simulated runtime cannot start");
                    continue;
                }
            };
            let name = format!("simulated-{number}");
            let url = BaseUrl::from_addr(runtime.addr());
            let state_dir = data_dir.join(&name);
            let mut agent = ollama_agent::Config::new(coordinator.clone(), url, state_dir);
            agent.machine_name = name;
            agent.link = ollama_agent::config::Link::Direct { advertised: None };
            self.simulated.push(runtime);
            self.spawn(agent);
        }
    }
}
