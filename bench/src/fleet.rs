//! The agents of the measures of cost: their requests as ready bytes, in the real protocol.

use std::net::SocketAddr;
use std::time::Duration;

use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use tokio::time::{Instant, sleep};

use crate::client::request;
use crate::coordinator::Coordinator;
use crate::load::{self, Load};

/// Many, because each commit writes the whole registry.
const CONNECTIONS: u64 = 1_000;
const SETTLED_AFTER: Duration = Duration::from_millis(1_500);
const SETTLE_WITHIN: Duration = Duration::from_secs(90);

/// Two models, one of them loaded, and one GPU each.
const DESCRIPTION: &str = r#""ollama_version":"0.12.6","agent_version":"0.1.0","system_info":{"os":"Debian GNU/Linux 12","arch":"x86_64","cpu":"AMD Ryzen 9 7950X 16-Core Processor","cpu_cores":32,"memory_bytes":68719476736,"gpus":[{"name":"NVIDIA GeForce RTX 4090","memory_bytes":25757220864,"driver":"550.54.14"}]},"runtime":{"kind":"ollama","status":"running","version":"0.12.6","models":[{"name":"llama3.1:8b","size":4920753328,"digest":"46e0c10c039e019119339687c3c1757cc81b9da49709a3b3924863ba87ca666e","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"8.0B","quantization_level":"Q4_K_M"}},{"name":"nomic-embed-text:latest","size":274302450,"digest":"0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f","details":{"parent_model":"","format":"gguf","family":"nomic-bert","families":["nomic-bert"],"parameter_size":"137M","quantization_level":"F16"}}],"loaded_models":[{"name":"llama3.1:8b","size":6654289920,"size_vram":6654289920}],"slots":4}"#;

/// Agents that all front one scripted runtime.
#[derive(Debug)]
pub(crate) struct Fleet {
    runtime: ScriptedRuntime,
}

/// Which process of an agent speaks: each has another session.
pub(crate) type Run = u64;

impl Fleet {
    /// Starts the runtime.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let runtime = ScriptedRuntime::start(RuntimeScript::default()).await?;
        Ok(Self { runtime })
    }

    /// Returns where the runtime of all agents is.
    pub(crate) fn runtime(&self) -> SocketAddr {
        self.runtime.addr()
    }

    /// Returns the registration of an agent.
    pub(crate) fn registration(&self, agent: u64, run: Run) -> Vec<u8> {
        registration(self.runtime(), agent, run)
    }

    /// Registers the agents from `first` to before `end`, and waits until their addresses have
    /// been tried.
    pub(crate) async fn register(
        &self,
        coordinator: &Coordinator,
        first: u64,
        end: u64,
    ) -> anyhow::Result<()> {
        let runtime = self.runtime();
        let wanted = end - first;
        let connections = usize::try_from(CONNECTIONS.min(wanted))?;
        let load = Load::count(connections, wanted);
        let outcome = load::run(coordinator.addr, load, move |number| {
            registration(runtime, first + number, 0)
        });
        let registered = outcome.await?.checked()?.succeeded;
        anyhow::ensure!(
            registered == wanted,
            "only {registered} of {wanted} registered in time"
        );
        self.settle().await;
        Ok(())
    }

    /// Waits until the coordinator has tried every address.
    pub(crate) async fn settle(&self) {
        let deadline = Instant::now() + SETTLE_WITHIN;
        let mut seen = self.runtime.requests();
        loop {
            sleep(SETTLED_AFTER).await;
            let now = self.runtime.requests();
            if now == seen || Instant::now() >= deadline {
                return;
            }
            seen = now;
        }
    }
}

/// Returns the registration of an agent in front of `runtime`.
pub(crate) fn registration(runtime: SocketAddr, agent: u64, run: Run) -> Vec<u8> {
    let body = format!(
        r#"{{"machine_name":"machine-{agent:06}","ip_address":"{}","port":{},"agent_id":"{}","session":"{}",{DESCRIPTION}}}"#,
        runtime.ip(),
        runtime.port(),
        id(agent),
        session(agent, run),
    );
    request("POST", "/api/agents", Some(&secret(agent)), &body)
}

/// Returns the registration of an agent that carries its traffic itself.
pub(crate) fn tunnelled(agent: u64, run: Run) -> Vec<u8> {
    let body = format!(
        r#"{{"machine_name":"machine-{agent:06}","ip_address":"127.0.0.1","port":11434,"link":"tunnel","agent_id":"{}","session":"{}",{DESCRIPTION}}}"#,
        id(agent),
        session(agent, run),
    );
    request("POST", "/api/agents", Some(&secret(agent)), &body)
}

/// Returns the session of an agent's first process, and its secret.
pub(crate) fn credentials(agent: u64) -> (String, String) {
    (session(agent, 0).to_string(), secret(agent))
}

/// Returns a heartbeat of an agent; `seq` must grow.
pub(crate) fn heartbeat(agent: u64, run: Run, seq: u64) -> Vec<u8> {
    let path = format!("/api/agents/{}/heartbeat", id(agent));
    let session = session(agent, run);
    let body = format!(r#"{{"session":"{session}","epoch":1,"seq":{seq}}}"#);
    request("POST", &path, Some(&secret(agent)), &body)
}

/// Like [`heartbeat`], with the machine's load.
pub(crate) fn heartbeat_with_load(agent: u64, run: Run, seq: u64) -> Vec<u8> {
    let path = format!("/api/agents/{}/heartbeat", id(agent));
    let session = session(agent, run);
    let body = format!(
        r#"{{"session":"{session}","epoch":1,"seq":{seq},"metrics":{{"cpu_percent":{}.5,"memory_used_bytes":17179869184,"gpu_percent":71.0,"gpu_memory_used_bytes":8589934592,"gpu_temperature_celsius":61.0}}}}"#,
        seq % 100
    );
    request("POST", &path, Some(&secret(agent)), &body)
}

/// Returns the id of an agent; neighbours in number are not neighbours in order.
pub(crate) fn id(agent: u64) -> AgentId {
    AgentId::from_u128(scattered(agent))
}

fn session(agent: u64, run: Run) -> SessionId {
    SessionId::from_u128(scattered(agent) ^ u128::from(run) << 64 ^ 1)
}

fn secret(agent: u64) -> String {
    format!("{:064x}", scattered(agent))
}

fn scattered(agent: u64) -> u128 {
    (u128::from(agent) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
}
