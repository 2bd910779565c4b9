//! A machine at home serves whatever is asked for, with its runtime on loopback and no port open.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_simulator::runtime::script::{RuntimeScript, embedding_model, simulated_model};
use serde_json::json;

use crate::support::api::{Api, request};
use crate::support::chat::{MODEL, chat};
use crate::support::nat::{Joined, Nat};
use crate::support::network::Host;
use crate::support::process::{binary, finish};
use crate::support::seen::ask;
use crate::support::{say, skip};

const BLOB: usize = 64 << 20;
const BLOB_OF_ZEROS: &str =
    "/api/blobs/sha256:3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351";
/// How much more memory a process may take for an upload than before.
const FLAT: u64 = 16 << 20;

#[tokio::test]
async fn machine_behind_nat_with_its_runtime_on_loopback_serves_everything() {
    let nat = match Nat::new() {
        Ok(nat) => nat,
        Err(reason) => return skip("a machine behind NAT", &reason),
    };
    let models = vec![
        simulated_model("simulated-small:latest", 1 << 30),
        embedding_model("simulated-embed:latest"),
    ];
    let script = RuntimeScript {
        models,
        transfer_time: Duration::from_millis(300),
        ..RuntimeScript::default()
    };
    let (coordinator, joined) = nat.start(script).await;
    let api = nat.api();

    let agent = nat.wait("at-home", "there", |_| true).await;
    assert_eq!(agent.link, LinkKind::Tunnel);
    let mut list = binary(nat.machine.home());
    list.args(["agents", "--url", &api.url()]);
    let listed = finish(list).await;
    assert!(listed.stdout.contains("tunnel"), "{listed:?}");
    for port in [11434, 22] {
        assert!(!is_open(SocketAddr::from(([192, 168, 7, 20], port))));
        assert!(!is_open(SocketAddr::from(([203, 0, 113, 1], port))));
    }

    answers_come(api, &joined).await;
    progress_comes_in_pieces(api).await;

    let processes = [coordinator.id(), joined.agent.id()];
    let before = processes.map(peak_memory);
    let upload = request(Method::POST, BLOB_OF_ZEROS, vec![0; BLOB]);
    let uploaded = api.send(upload).await;
    assert_eq!(uploaded.status, StatusCode::CREATED);
    let after = processes.map(peak_memory);
    let grown = [after[0] - before[0], after[1] - before[1]];
    say(&format!(
        "64 MiB uploaded through a tunnel: the coordinator's peak memory grew by {} KiB, the \
         agent's by {} KiB",
        grown[0] >> 10,
        grown[1] >> 10
    ));
    assert!(grown.iter().all(|grown| *grown < FLAT), "{grown:?}");
    assert!(coordinator.stop().await.success());
}

#[tokio::test]
async fn machine_with_several_interfaces_is_known_by_the_one_towards_the_coordinator() {
    let hosts = Nat::new().and_then(|nat| Ok((nat, Host::new("elsewhere")?)));
    let (nat, elsewhere) = match hosts {
        Ok(hosts) => hosts,
        Err(reason) => return skip("several interfaces", &reason),
    };
    for (interface, here, there) in [
        ("docker0", "172.17.0.1/16", "172.17.0.2/16"),
        ("tailscale0", "100.64.0.1/10", "100.64.0.2/10"),
        ("eth1", "10.1.2.1/24", "10.1.2.2/24"),
    ] {
        let cable = nat
            .home
            .connect((interface, here), &elsewhere, (interface, there));
        cable.unwrap();
    }

    let (_coordinator, _joined) = nat.start(RuntimeScript::default()).await;

    let agent = nat.wait("at-home", "there", |_| true).await;
    assert_eq!(agent.ip_address.to_string(), "192.168.7.20");
}

async fn answers_come(api: Api, joined: &Joined) {
    let told = ask(api, "hello", true).await;
    assert_eq!(
        told.said,
        joined.runtime.script().answer(MODEL, "hello", None)
    );
    let mut asked = chat("hi");
    asked["stream"] = false.into();
    let answer = api.post("/api/chat", &asked).await.json().await;
    assert_eq!(answer["done"], true);
    let asked = json!({ "model": "simulated-embed", "input": ["a", "b"] });
    let embedded = api.post("/api/embed", &asked).await.json().await;
    assert_eq!(embedded["embeddings"].as_array().map(Vec::len), Some(2));
}

async fn progress_comes_in_pieces(api: Api) {
    let mut pulled = api.post("/api/pull", &json!({ "model": "new" })).await;
    let (mut frames, mut lines) = (0, String::new());
    while let Some(frame) = pulled.next_frame().await.expect("it goes on") {
        frames += 1;
        lines.push_str(std::str::from_utf8(&frame).expect("it is text"));
    }
    assert!(
        lines.trim_end().ends_with(r#"{"status":"success"}"#),
        "{lines}"
    );
    assert!(frames > 2, "progress came in {frames} pieces");
}

fn is_open(addr: SocketAddr) -> bool {
    TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok()
}

/// Returns the most memory in bytes that a process has had.
fn peak_memory(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("Linux says so")
        .parse::<u64>()
        .expect("it is a number")
        << 10
}
