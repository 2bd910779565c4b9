//! A coordinator somewhere, and a machine at home behind a router that lets nothing in.

use std::net::{Ipv4Addr, SocketAddr};

use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};

use super::agent_process::{AgentHome, AgentProcess};
use super::api::Api;
use super::network::{Host, Inside};
use super::process::{CoordinatorProcess, Machine};

/// Where Ollama listens as installed.
const OLLAMA: u16 = 11434;
const PORT: u16 = 11400;

const FIREWALL: &str = "\
    table ip nat { chain out { type nat hook postrouting priority 100; oifname wan masquerade; }; };
    table inet filter {
        chain through {
            type filter hook forward priority 0; policy drop;
            ct state established,related accept;
            iifname lan oifname wan accept;
        };
        chain into {
            type filter hook input priority 0; policy accept;
            ct state established,related accept;
            iifname wan drop;
        };
    };
    table inet fault { chain through { type filter hook forward priority -10; }; }";

/// Three hosts in a row: `home` | `router` | `hub`. This thread is on the hub.
#[derive(Debug)]
pub(crate) struct Nat {
    /// Where clients and a coordinator of default settings are.
    pub(crate) machine: Machine,
    _on_hub: Inside,
    pub(crate) home: Host,
    pub(crate) router: Host,
    pub(crate) hub: Host,
}

impl Nat {
    /// Where agents find the hub: an address for documentation, which is no private one and nobody
    /// else's either.
    pub(crate) const ADDRESS: &str = "203.0.113.10";

    /// Lays the cables.
    ///
    /// # Errors
    /// It is not possible here; the text says why.
    pub(crate) fn new() -> Result<Self, String> {
        let [home, router, hub] = ["home", "router", "hub"].map(Host::new);
        let (home, router, hub) = (home?, router?, hub?);
        home.connect(
            ("eth0", "192.168.7.20/24"),
            &router,
            ("lan", "192.168.7.1/24"),
        )?;
        hub.connect(
            ("eth0", "203.0.113.10/24"),
            &router,
            ("wan", "203.0.113.1/24"),
        )?;
        home.ip("route add default via 192.168.7.1")?;
        // The hub may well know the way: it is the router that lets nothing in.
        hub.ip("route add 192.168.7.0/24 via 203.0.113.1")?;
        router.forward()?;
        router.nft(FIREWALL)?;
        let on_hub = hub.enter();
        Ok(Self {
            machine: Machine::listening(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))),
            _on_hub: on_hub,
            home,
            router,
            hub,
        })
    }

    pub(crate) fn api(&self) -> Api {
        self.machine.api
    }

    /// Waits until the agent of a machine is as `expected`.
    pub(crate) async fn wait(
        &self,
        name: &str,
        what: &str,
        expected: impl Fn(&AgentView) -> bool,
    ) -> AgentView {
        let found = || async {
            let mut agents = self.api().agents().await.into_iter();
            agents.find(|agent| agent.machine_name == name)
        };
        let is_expected = |agent: &Option<AgentView>| agent.as_ref().is_some_and(&expected);
        let agent = wait_for(what, PATIENCE * 3, found, is_expected).await;
        agent.expect("it was expected")
    }

    /// Starts a coordinator, and an agent at home as [`Self::join`] does.
    pub(crate) async fn start(&self, script: RuntimeScript) -> (CoordinatorProcess, Joined) {
        let coordinator = self.machine.start().await;
        let joined = self.join(&self.home, "at-home", script, &[]).await;
        (coordinator, joined)
    }

    /// Starts a runtime on a host's loopback and an agent that is told the coordinator's URL and
    /// what `environment` says, and waits until requests come there.
    pub(crate) async fn join(
        &self,
        host: &Host,
        name: &str,
        script: RuntimeScript,
        environment: &[(&str, &str)],
    ) -> Joined {
        let inside = host.enter();
        let runtime = ScriptedRuntime::start_on(OLLAMA, script).await;
        let runtime = runtime.expect("the host is new");
        let home = AgentHome::new(name);
        let told = (
            "OLLAMA_AGENT_COORDINATOR",
            format!("http://{}:{PORT}", Self::ADDRESS),
        );
        let environment: Vec<_> = [(told.0, told.1.as_str())]
            .into_iter()
            .chain(environment.iter().copied())
            .collect();
        let agent = home.start(&[], &environment);
        drop(inside);
        let joined = Joined {
            agent,
            runtime,
            _home: home,
        };
        self.wait(name, "routable", |agent| agent.routable).await;
        joined
    }

    /// Has the router do something to all that it passes on, such as `drop`.
    pub(crate) fn disturb(&self, rule: &str) {
        let rule = format!("add rule inet fault through {rule}");
        self.router.nft(&rule).expect("it is a rule");
    }

    /// Has the router pass on no more than 1 Mbit/s each way, and keep what waits for at most 0.4 s.
    ///
    /// # Errors
    /// It is not possible here; the text says why.
    pub(crate) fn slow_down(&self) -> Result<(), String> {
        self.router.slow_down("lan")?;
        self.router.slow_down("wan")
    }

    /// Has the router do its work again.
    pub(crate) fn calm(&self) {
        let flush = "flush chain inet fault through";
        self.router.nft(flush).expect("there is such a chain");
    }
}

/// A runtime with an agent in front of it.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) agent: AgentProcess,
    pub(crate) runtime: ScriptedRuntime,
    _home: AgentHome,
}
