//! Networks without IPv4.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};

use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};

use crate::support::agent_process::AgentHome;
use crate::support::api::Api;
use crate::support::network::Host;
use crate::support::process::Machine;
use crate::support::seen::ask;
use crate::support::skip;

#[tokio::test]
async fn agent_and_coordinator_meet_on_the_ipv6_loopback() {
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if let Err(error) = TcpListener::bind(loopback) {
        return skip("IPv6 on loopback", &error.to_string());
    }
    let machine = Machine::listening(loopback);
    let _coordinator = machine.start().await;
    let runtime = ScriptedRuntime::start(RuntimeScript::default())
        .await
        .unwrap();
    let home = AgentHome::new("loopback");
    let told = [
        "--coordinator",
        &machine.api.url(),
        "--runtime",
        &runtime.url(),
    ];
    let _agent = home.start(&told, &[]);

    wait_until_routable(machine.api).await;

    assert_eq!(ask(machine.api, "hi", true).await.seen.whole, 1);
}

#[tokio::test]
async fn agent_serves_over_a_network_that_has_ipv6_only() {
    let (home, hub) = match cabled() {
        Ok(hosts) => hosts,
        Err(reason) => return skip("a network that has IPv6 only", &reason),
    };
    let on_hub = hub.enter();
    let machine = Machine::listening(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 11400)));
    let _coordinator = machine.start().await;
    let at_home = home.enter();
    let runtime = ScriptedRuntime::start_on(11434, RuntimeScript::default()).await;
    let runtime = runtime.unwrap();
    let agent_home = AgentHome::new("v6");
    let _agent = agent_home.start(&["--coordinator", "http://[fd00:77::1]:11400"], &[]);
    drop(at_home);

    wait_until_routable(machine.api).await;

    assert_eq!(ask(machine.api, "hi", true).await.seen.whole, 1);
    assert!(runtime.requests() > 0);
    drop(on_hub);
}

fn cabled() -> Result<(Host, Host), String> {
    let (home, hub) = (Host::new("home")?, Host::new("hub")?);
    home.connect(("eth0", "fd00:77::2/64"), &hub, ("eth0", "fd00:77::1/64"))?;
    Ok((home, hub))
}

async fn wait_until_routable(api: Api) {
    let is_there = |agents: &Vec<AgentView>| agents.iter().any(|agent| agent.routable);
    wait_for("routable", PATIENCE, || api.agents(), is_there).await;
}
