//! Reverse proxies in front of the coordinator, set up as docs/operations.md says.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_coordinator_common::protocol::event::Event;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use crate::support::agent_process::AgentHome;
use crate::support::api::{Api, request};
use crate::support::chat::MODEL;
use crate::support::events::EventStream;
use crate::support::network::run;
use crate::support::port::ReservedPort;
use crate::support::process::Machine;
use crate::support::{say, skip};

/// Longer than the timeouts that the tests give nginx, and than the time between two pings.
const IDLE: Duration = Duration::from_secs(14);
const NGINX_TIMEOUTS: &str = "proxy_read_timeout 12s; proxy_send_timeout 12s;";
const TOKENS: u32 = 10;
const UPLOAD: usize = 64 << 20;
const ZEROS: &str = "sha256:3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351";

#[rstest]
#[case::nginx_under_a_path("nginx", "/fleet", IDLE)]
#[case::nginx("nginx", "", Duration::ZERO)]
#[case::caddy_under_a_path("caddy", "/fleet", IDLE)]
#[case::caddy("caddy", "", Duration::ZERO)]
#[tokio::test]
async fn agents_and_clients_come_through_the_documented_reverse_proxy(
    #[case] server: &str,
    #[case] prefix: &str,
    #[case] idle: Duration,
) {
    let version = if server == "nginx" { "-v" } else { "version" };
    if let Err(reason) = run(std::process::Command::new(server).arg(version)) {
        return skip(&format!("{server} in front of the coordinator"), &reason);
    }
    let machine = Machine::new();
    let _coordinator = machine.start().await;
    let proxy = ReverseProxy::start(server, prefix, machine.api).await;
    let script = RuntimeScript {
        answer_tokens: std::num::NonZeroU32::new(TOKENS),
        tokens_per_second: std::num::NonZeroU32::new(20),
        ..RuntimeScript::default()
    };
    let runtime = ScriptedRuntime::start(script).await.unwrap();
    let home = AgentHome::new("behind-reverse-proxy");
    let url = format!("{}{prefix}", proxy.api.url());
    let told = ["--coordinator", &url, "--runtime", &runtime.url()];
    let _agent = home.start(&told, &[]);
    let is_there = |agents: &Vec<AgentView>| agents.iter().any(|agent| agent.routable);
    let agents = wait_for("routable", PATIENCE, || machine.api.agents(), is_there).await;
    assert_eq!(agents[0].link, LinkKind::Tunnel);

    stays_routable(machine.api, idle).await;

    let asked = json!({ "model": MODEL, "prompt": "hi" });
    let began = Instant::now();
    let generate = format!("{prefix}/api/generate");
    let mut answer = proxy.api.post(&generate, &asked).await;
    let mut arrivals = Vec::new();
    while answer.next_frame().await.expect("it is whole").is_some() {
        arrivals.push(began.elapsed());
    }
    let (first, last) = (arrivals[0], arrivals[arrivals.len() - 1]);
    say(&format!(
        "through {server}, idle for {} s: {} pieces, the first after {} ms, the last after {} ms",
        idle.as_secs(),
        arrivals.len(),
        first.as_millis(),
        last.as_millis()
    ));
    assert!(arrivals.len() > 6 && first < last / 2, "{arrivals:?}");

    let path = format!("{prefix}/api/blobs/{ZEROS}");
    let uploaded = proxy
        .api
        .send(request(Method::POST, &path, vec![0; UPLOAD]))
        .await;
    assert_eq!(uploaded.status, StatusCode::CREATED);
}

/// Watches that no agent loses its tunnel.
async fn stays_routable(api: Api, idle: Duration) {
    let mut events = EventStream::open(api).await;
    let lost = async {
        while let Some(event) = events.next().await {
            if let Event::AgentChanged { agent, .. } = event
                && !agent.routable
            {
                return Some(agent.reason);
            }
        }
        None
    };
    let lost = timeout(idle, lost).await;
    assert!(lost.is_err(), "{lost:?}");
}

/// A running reverse proxy.
struct ReverseProxy {
    api: Api,
    _process: Child,
    _port: ReservedPort,
    _directory: TempDir,
}

impl ReverseProxy {
    async fn start(server: &str, prefix: &str, coordinator: Api) -> Self {
        let directory = tempfile::tempdir().expect("there is room for a directory");
        let port = ReservedPort::new();
        let settings = documented(server)
            .replace("127.0.0.1:11400", &coordinator.addr().to_string())
            .replace("/fleet", prefix);
        let mut command = match server {
            "nginx" => nginx(directory.path(), &settings, &port),
            _ => caddy(directory.path(), &settings, &port),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let process = command.spawn().expect("it is installed");
        let api = Api::new(port.addr());
        let path = format!("{prefix}/healthz");
        let is_up = async || {
            let answer = api.try_send(request(Method::GET, &path, "")).await;
            answer.is_ok_and(|answer| answer.status == StatusCode::OK)
        };
        wait_for("the reverse proxy", PATIENCE, is_up, |is_up| *is_up).await;
        Self {
            api,
            _process: process,
            _port: port,
            _directory: directory,
        }
    }
}

fn nginx(directory: &Path, settings: &str, port: &ReservedPort) -> Command {
    let settings = settings
        .replace("listen 80;", &format!("listen {};", port.addr()))
        .replace("proxy_read_timeout 15m;", NGINX_TIMEOUTS);
    let place = directory.display();
    let whole = format!(
        "daemon off; master_process off; pid {place}/pid; events {{}}\n\
         http {{ access_log off; client_body_temp_path {place}/body; \
         proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi; \
         uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;\n{settings}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, whole).expect("it is writable");
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-c"]).arg(file);
    command
}

fn caddy(directory: &Path, settings: &str, port: &ReservedPort) -> Command {
    let address = format!("http://{} {{", port.addr());
    let settings = settings.replace("http://:80 {", &address);
    let file = directory.join("Caddyfile");
    let whole = format!("{{\n    admin off\n}}\n{settings}");
    std::fs::write(&file, whole).expect("it is writable");
    let mut command = Command::new("caddy");
    command
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(file);
    command.env("HOME", directory).stderr(Stdio::null());
    command
}

/// Returns the settings that the documentation shows for a reverse proxy.
fn documented(server: &str) -> String {
    let page = include_str!("../../../../docs/operations.md");
    let marker = match server {
        "nginx" => "For nginx",
        _ => "For Caddy",
    };
    let after = page.split_once(marker).expect("it is documented").1;
    let block = after.split("```\n").nth(1).expect("it is shown");
    block.to_owned()
}
