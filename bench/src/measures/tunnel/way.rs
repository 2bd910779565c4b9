//! A coordinator and real agents, whose link is what is compared.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::client::{Connection, request};
use crate::coordinator::{Coordinator, Leases, start_agent, work_dir};
use crate::machine::Halves;
use crate::process::Process;

const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A coordinator and its agents, all on the tested processor.
#[derive(Debug)]
pub(super) struct Way {
    coordinator: Coordinator,
    agents: Vec<(String, Process)>,
    _dir: TempDir,
}

impl Way {
    /// Starts an agent with `flags` in front of each runtime, and waits until all get requests.
    pub(super) async fn start(
        halves: &Halves,
        runtimes: &[SocketAddr],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let dir = work_dir()?;
        halves.to_tested()?;
        let coordinator = Coordinator::start(dir.path(), Leases::Long).await;
        let coordinator = coordinator?;
        let mut agents = Vec::new();
        for (number, runtime) in runtimes.iter().enumerate() {
            let name = format!("agent-{number}");
            let state_dir = dir.path().join(&name);
            std::fs::create_dir(&state_dir)?;
            let mut flags = flags.to_vec();
            flags.extend(["--machine-name", &name]);
            let agent = start_agent(&state_dir, coordinator.addr, *runtime, &flags)?;
            agents.push((name, agent));
        }
        halves.to_load()?;
        let way = Self {
            coordinator,
            agents,
            _dir: dir,
        };
        way.becomes_ready().await?;
        Ok(way)
    }

    /// Returns where the coordinator listens.
    pub(super) fn addr(&self) -> SocketAddr {
        self.coordinator.addr
    }

    /// Returns the coordinator's process.
    pub(super) fn coordinator(&self) -> &Process {
        &self.coordinator.process
    }

    /// Returns all processes.
    pub(super) fn processes(&self) -> Vec<&Process> {
        let agents = self.agents.iter().map(|(_, agent)| agent);
        std::iter::once(self.coordinator()).chain(agents).collect()
    }

    /// Returns the processor time of all of them.
    pub(super) fn cpu(&self) -> Duration {
        let processes = self.processes();
        processes.iter().map(|process| process.cpu()).sum()
    }

    /// Returns the memory of all of them, in bytes.
    pub(super) fn memory(&self) -> u64 {
        let processes = self.processes();
        processes.iter().map(|process| process.memory()).sum()
    }

    /// Takes the agents out, to do with them what must be done.
    pub(super) fn take_agents(&mut self) -> Vec<(String, Process)> {
        std::mem::take(&mut self.agents)
    }

    /// Returns the documents of the agents.
    pub(super) async fn documents(&self) -> anyhow::Result<Vec<Value>> {
        let mut connection = Connection::open(self.addr()).await?;
        let list = request("GET", "/api/agents", None, "");
        let answer = connection.send(&list).await?;
        Ok(serde_json::from_slice(answer.body)?)
    }

    async fn becomes_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        let is_routable = |agent: &&Value| agent.get("routable") == Some(&Value::Bool(true));
        loop {
            let agents = self.documents().await?;
            if agents.iter().filter(is_routable).count() == self.agents.len() {
                return self.lift_limits(&agents).await;
            }
            anyhow::ensure!(Instant::now() < deadline, "the agents were not routable");
            sleep(LOOK_EVERY).await;
        }
    }

    async fn lift_limits(&self, agents: &[Value]) -> anyhow::Result<()> {
        let mut connection = Connection::open(self.addr()).await?;
        for agent in agents {
            let id = agent.get("id").and_then(Value::as_str);
            let path = format!("/api/agents/{}", id.context("an agent has no id")?);
            let unlimited = request("PATCH", &path, None, r#"{"capacity":10000}"#);
            let changed = connection.send(&unlimited).await?;
            anyhow::ensure!(changed.is_success(), "the capacity was not set");
        }
        Ok(())
    }
}
