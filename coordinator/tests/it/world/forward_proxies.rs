//! Agents that reach their coordinator through a proxy, by `CONNECT`, and those that had better not.

use std::process::Stdio;

use ollama_simulator::runtime::script::RuntimeScript;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::support::nat::Nat;
use crate::support::network::run;
use crate::support::seen::ask;
use crate::support::skip;

const PROXY: &str = "http://192.168.7.1:8888";
/// Nothing listens there.
const NO_PROXY_AT_ALL: &str = "http://192.168.7.1:9";
const SETTINGS: &str = "\
Port 8888
Listen 192.168.7.1
Timeout 600
Allow 192.168.7.0/24
ConnectPort 11400
";

#[tokio::test]
async fn agent_that_may_only_use_a_proxy_carries_traffic_through_it() {
    let nat = match with_tinyproxy() {
        Ok(nat) => nat,
        Err(reason) => return skip("a proxy that knows CONNECT", &reason),
    };
    let _coordinator = nat.machine.start().await;
    let _proxy = Tinyproxy::start(&nat);
    nat.disturb("drop");

    let environment = [("HTTPS_PROXY", PROXY)];
    let script = RuntimeScript::default();
    let joined = nat
        .join(&nat.home, "behind-proxy", script, &environment)
        .await;

    assert_eq!(ask(nat.api(), "hi", true).await.seen.whole, 1);
    assert!(joined.runtime.requests() > 0);
}

#[tokio::test]
async fn coordinator_that_no_proxy_names_or_that_is_near_is_reached_without_one() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("a coordinator that is reached without a proxy", &reason),
    };
    nat.hub.ip("addr add 10.9.0.10/24 dev eth0").unwrap();
    nat.router.ip("addr add 10.9.0.1/24 dev wan").unwrap();
    let _coordinator = nat.machine.start().await;
    let script = RuntimeScript::default();
    let excepted = [
        ("HTTPS_PROXY", NO_PROXY_AT_ALL),
        ("NO_PROXY", "example.org, 203.0.113.0/24"),
    ];
    let private = [
        ("HTTPS_PROXY", NO_PROXY_AT_ALL),
        ("OLLAMA_AGENT_COORDINATOR", "http://10.9.0.10:11400"),
    ];

    let joined = nat
        .join(&nat.home, "excepted", script.clone(), &excepted)
        .await;
    assert_eq!(ask(nat.api(), "hi", true).await.seen.whole, 1);
    joined.runtime.stop().await;
    drop(joined.agent);
    let _joined = nat.join(&nat.home, "private", script, &private).await;
    assert_eq!(ask(nat.api(), "hi", true).await.seen.whole, 1);
}

fn with_tinyproxy() -> Result<Nat, String> {
    run(std::process::Command::new("tinyproxy").arg("-v"))?;
    Nat::new()
}

/// The Debian package, running on the router.
struct Tinyproxy {
    _process: Child,
    _directory: TempDir,
}

impl Tinyproxy {
    fn start(nat: &Nat) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let settings = directory.path().join("tinyproxy.conf");
        std::fs::write(&settings, SETTINGS).expect("it is writable");
        let _on_router = nat.router.enter();
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(settings);
        command.stdout(Stdio::null()).kill_on_drop(true);
        Self {
            _process: command.spawn().expect("it is installed"),
            _directory: directory,
        }
    }
}
