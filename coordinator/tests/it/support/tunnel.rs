//! Agents that carry their traffic themselves.

use http::StatusCode;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::tunnel::{Bearer, SimulatedTunnel, TunnelError};

use super::agent::FakeAgent;
use super::api::Api;

/// Opens the tunnel of an agent, or returns the status of the refusal.
pub(crate) async fn open(
    api: Api,
    agent: &FakeAgent,
    bearer: Bearer,
) -> Result<SimulatedTunnel, StatusCode> {
    let (path, session) = (agent.path(""), agent.session.to_string());
    let secret = agent.secret.expose();
    match SimulatedTunnel::open(api.addr(), &path, &session, secret, bearer).await {
        Ok(tunnel) => Ok(tunnel),
        Err(TunnelError::Refused(status)) => Err(status),
        Err(error @ TunnelError::Broken(_)) => super::api::panic_at("the tunnel", &error),
    }
}

/// Registers an agent that carries its traffic itself, and waits until requests come.
pub(crate) async fn joined_by_tunnel(
    api: Api,
    runtime: &ScriptedRuntime,
) -> (FakeAgent, SimulatedTunnel) {
    let mut agent = FakeAgent::in_front_of(runtime, "behind-nat");
    agent.link = LinkKind::Tunnel;
    agent.register(api).await;
    let tunnel = open(api, &agent, Bearer::Runtime(runtime.addr())).await;
    api.wait_until_routable(agent.id).await;
    (agent, tunnel.expect("the tunnel opens"))
}
