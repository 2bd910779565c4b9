//! A machine as a real agent's process in front of a scripted runtime, with links that misbehave on
//! demand.

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::fault_proxy::{FaultProxy, ProxyFault};
use ollama_simulator::history::Recorder;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};

use super::agent_process::{AgentHome, AgentProcess};
use super::api::Api;

/// How the coordinator reaches the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Through the agent.
    Tunnel,
    /// By itself.
    Direct,
}

/// A machine, and what is between it and the coordinator.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) id: AgentId,
    pub(crate) agent: AgentProcess,
    /// From the agent to the coordinator.
    pub(crate) link: FaultProxy,
    /// From the coordinator to the runtime, where it dials it.
    pub(crate) way: FaultProxy,
    reach: Reach,
    api: Api,
    home: AgentHome,
    runtime: ScriptedRuntime,
}

impl Site {
    /// Starts an agent and waits until requests come here.
    pub(crate) async fn new(api: Api, name: &str, reach: Reach, script: RuntimeScript) -> Self {
        let runtime = ScriptedRuntime::start(script).await;
        let runtime = runtime.expect("a port is free");
        let link = FaultProxy::start(api.addr()).await;
        let way = FaultProxy::start(runtime.addr()).await;
        let (link, way) = (link.expect("a port is free"), way.expect("a port is free"));
        let home = AgentHome::new(name);
        let agent = start(&home, &link, &way, &runtime, reach);
        let is_it = |agent: &AgentView| agent.machine_name == name && agent.routable;
        let found = || async { api.agents().await.into_iter().find(is_it) };
        let found = wait_for(name, PATIENCE * 2, found, Option::is_some).await;
        Self {
            name: name.to_owned(),
            id: found.expect("it is there").id,
            agent,
            link,
            way,
            reach,
            api,
            home,
            runtime,
        }
    }

    /// Starts the agent again.
    pub(crate) async fn start(&mut self) {
        self.way.set_fault(ProxyFault::None).await;
        self.agent = start(&self.home, &self.link, &self.way, &self.runtime, self.reach);
    }

    /// Kills the agent; where the coordinator dials the runtime, that is gone with it.
    pub(crate) async fn kill(&mut self) {
        self.agent.kill();
        self.way.set_fault(ProxyFault::Refuse).await;
    }

    /// Has everything between here and the coordinator misbehave.
    pub(crate) async fn disturb(&self, fault: ProxyFault) {
        self.link.set_fault(fault).await;
        self.way.set_fault(fault).await;
    }

    /// Waits until requests come here again, and says so.
    pub(crate) async fn wait_until_it_works(&self, recorder: &Recorder) {
        let what = format!("{} routable", self.name);
        let shown = || self.api.agent(self.id);
        wait_for(what, PATIENCE * 2, shown, |agent| agent.routable).await;
        recorder.works(&self.name);
    }
}

fn start(
    home: &AgentHome,
    link: &FaultProxy,
    way: &FaultProxy,
    runtime: &ScriptedRuntime,
    reach: Reach,
) -> AgentProcess {
    let coordinator = format!("http://{}", link.addr());
    let (runtime, way) = (runtime.url(), way.addr().to_string());
    let told = ["--coordinator", &coordinator, "--runtime", &runtime];
    let told = told.into_iter().chain(["--capacity", "32"]);
    let advertised = [("OLLAMA_AGENT_ADVERTISE", way.as_str())];
    let environment: &[(&str, &str)] = match reach {
        Reach::Tunnel => &[],
        Reach::Direct => &advertised,
    };
    home.start(&told.collect::<Vec<_>>(), environment)
}
