//! The command line, as the real binary.

use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use rstest::rstest;
use serde_json::{Value, json};

use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;
use crate::support::port::ReservedPort;
use crate::support::process::{Ended, Machine, binary, finish};

#[rstest]
#[case::serving("help", &["--help"])]
#[case::listing("help_agents", &["agents", "--help"])]
#[case::examining("help_doctor", &["doctor", "--help"])]
#[case::service("help_service", &["service", "--help"])]
#[case::install("help_service_install", &["service", "install", "--help"])]
#[tokio::test]
async fn help_is_worth_reading(#[case] name: &str, #[case] args: &[&str]) {
    let ended = run(args).await;

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    insta::assert_snapshot!(name, ended.stdout);
}

#[rstest]
#[case(&["--heartbeat-interval=0"], "--heartbeat-interval", "100ms to 10m")]
#[case(&["--heartbeat-interval=-5s"], "--heartbeat-interval", "")]
#[case(&["--heartbeat-interval=NaN"], "--heartbeat-interval", "")]
#[case(&["--agent-timeout=25h"], "--agent-timeout", "300ms to 1day")]
#[case(&["--agent-timeout=3s", "--heartbeat-interval=2s"], "--agent-timeout", "at least --agent-timeout 6s")]
#[case(&["--port=70000"], "--port", "65535")]
#[case(&["--port=http"], "--port", "")]
#[case(&["--host=gpu.lan"], "--host", "write an IP address")]
#[case(&["--log-format=xml"], "--log-format", "human, json")]
#[case(&["--no-such-flag"], "--no-such-flag", "")]
#[case(&["agents", "--url=ftp://x"], "", "scheme must be http")]
#[case(&["agents", "--filter=colour=red"], "--filter", "known are id, name")]
#[case(&["agents", "--sort=size"], "--sort", "name, state, seen, running")]
#[case(&["agents", "--check", "--watch"], "--check", "cannot be used with")]
#[case(&["doctor", "--url=ftp://x"], "", "scheme must be http")]
#[tokio::test]
async fn unusable_setting_is_refused_by_name(
    #[case] args: &[&str],
    #[case] flag: &str,
    #[case] range: &str,
) {
    let ended = run(args).await;

    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(
        ended.stderr.contains(flag) && ended.stderr.contains(range),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn environment_sets_what_flags_do_and_its_mistakes_are_refused_too() {
    let machine = Machine::new();
    let mut command = machine.command();
    command.env("OLLAMA_COORDINATOR_AGENT_TIMEOUT", "1ms");

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--agent-timeout"), "{}", ended.stderr);
}

#[tokio::test]
async fn port_in_use_is_refused_before_anything_is_touched() {
    let machine = Machine::new();
    let taken = ReservedPort::new();
    let _listener = taken.listen();

    let ended = finish(machine.command_on(taken.addr().port())).await;

    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("choose one with --port"),
        "{}",
        ended.stderr
    );
    assert!(!machine.data_dir().exists());
}

#[tokio::test]
async fn address_of_another_machine_is_an_unusable_setting() {
    let machine = Machine::new();
    let mut command = binary(machine.home());
    command.args(["--no-local-agent", "--host=192.0.2.1"]);

    let ended = finish(command).await;

    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("192.0.2.1"), "{}", ended.stderr);
}

#[tokio::test]
async fn listing_where_nobody_answers_says_what_to_do() {
    let nobody = ReservedPort::new();
    let url = format!("--url=http://{}", nobody.addr());

    let ended = run(&["agents", &url]).await;

    assert_eq!(ended.code, Some(3));
    assert!(
        ended.stderr.contains("start one with `ollama-coordinator`"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.stdout, "");
}

#[tokio::test]
async fn table_shows_the_agents_by_name() {
    let coordinator = TestCoordinator::new().await;
    let (online, offline) = (FakeAgent::new("gpu-2"), FakeAgent::new("gpu-1"));
    let mut body = online.registration();
    body["system_info"] = json!({ "gpus": [{ "name": "RTX 4090", "memory_bytes": 24_u64 << 30 }] });
    online.send(coordinator.api, "/api/agents", &body).await;
    let is_tried = |agent: &AgentView| agent.reason == Some(UnroutableReason::Unreachable);
    coordinator
        .api
        .wait_for_agent(online.id, "tried", is_tried)
        .await;
    offline.register(coordinator.api).await;
    offline.leave(coordinator.api).await;

    let ended = run(&["agents", &url(&coordinator)]).await;

    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines = ended
        .stdout
        .lines()
        .map(|line| match line.split_once("127.0.0.1:9 ") {
            Some((before, _seen)) => format!("{before}127.0.0.1:9  [seen]"),
            None => line.to_owned(),
        });
    insta::assert_snapshot!("agents_table", lines.collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn table_of_nobody_says_how_to_add_somebody() {
    let coordinator = TestCoordinator::new().await;

    let ended = run(&["agents", &url(&coordinator)]).await;

    assert_eq!(
        ended.stdout,
        "No agents yet. On each machine, run: ollama-agent --coordinator URL\n"
    );
}

#[tokio::test]
async fn json_for_programs_has_a_schema_and_the_agent_documents() {
    let coordinator = TestCoordinator::new().await;
    let agent = FakeAgent::new("gpu-1");
    agent.register(coordinator.api).await;
    agent.leave(coordinator.api).await;

    let ended = run(&["agents", "-o", "json", &url(&coordinator)]).await;

    let printed: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(printed["schema"], "ollama-coordinator.agents/1");
    assert!(printed["generated_at"].is_string());
    let listed = coordinator.api.get("/api/agents").await.json().await;
    assert_eq!(printed["agents"][0]["id"], json!(agent.id));
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&printed["agents"][0]), keys(&listed[0]));
}

#[tokio::test]
async fn list_is_filtered_sorted_and_checked() {
    let coordinator = TestCoordinator::new().await;
    let agents = ["gpu-1", "gpu-2", "mac-1"].map(FakeAgent::new);
    for (port, agent) in (9..).zip(&agents) {
        let mut body = agent.registration();
        body["port"] = port.into();
        agent.send(coordinator.api, "/api/agents", &body).await;
    }
    agents[1].leave(coordinator.api).await;
    let url = url(&coordinator);

    let listed = run(&[
        "agents",
        &url,
        "-o=tsv",
        "--sort=state",
        "--filter=name~gpu",
    ])
    .await;
    let nobody = run(&["agents", &url, "--filter=state=ready", "--check"]).await;
    let checked = run(&["agents", &url, "-o=wide", "--check"]).await;

    let names: Vec<&str> = listed
        .stdout
        .lines()
        .map(|line| line.split('\t').next().unwrap())
        .collect();
    assert_eq!(names, ["NAME", "gpu-2", "gpu-1"], "{listed:?}");
    assert_eq!(nobody.stdout, "No agent is so.\n");
    assert_eq!(
        (listed.code, nobody.code, checked.code),
        (Some(0), Some(0), Some(5))
    );
    assert!(
        checked.stdout.contains(&agents[0].id.to_string()),
        "{checked:?}"
    );
    assert!(
        checked
            .stdout
            .contains("Why: ollama-coordinator doctor gpu-1"),
        "{checked:?}"
    );
}

#[tokio::test]
async fn version_is_told() {
    let ended = run(&["--version"]).await;

    assert_eq!(
        ended.stdout,
        concat!("ollama-coordinator ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

fn url(coordinator: &TestCoordinator) -> String {
    format!("--url={}", coordinator.api.url())
}

async fn run(args: &[&str]) -> Ended {
    let home = tempfile::tempdir().expect("there is room for a directory");
    let mut command = binary(home.path());
    command.args(args);
    finish(command).await
}
