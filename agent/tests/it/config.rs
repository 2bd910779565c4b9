//! What flags and environment come to, seen from the coordinator that is told.

use rstest::rstest;

use crate::support::coordinator::FakeCoordinator;
use crate::support::process::{command, ended, messages};
use crate::support::runtime::FakeRuntime;

#[rstest]
#[case::own_variable(&[
    ("OLLAMA_AGENT_MACHINE_NAME", "first"), ("OLLAMA_MACHINE_NAME", "second"), ("HOSTNAME", "third"),
], "first")]
#[case::shared_variable(&[("OLLAMA_MACHINE_NAME", "second"), ("HOSTNAME", "third")], "second")]
#[case::system_variable(&[("HOSTNAME", "third")], "third")]
#[case::empty_ones_are_skipped(&[
    ("OLLAMA_AGENT_MACHINE_NAME", ""), ("OLLAMA_MACHINE_NAME", " "), ("HOSTNAME", "third"),
], "third")]
#[tokio::test]
async fn machine_name_comes_from_the_first_that_says_one(
    #[case] environment: &[(&str, &str)],
    #[case] expected: &str,
) {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();

    let _agent = command(state_dir.path())
        .env("OLLAMA_AGENT_COORDINATOR", coordinator.url().to_string())
        .envs(environment.iter().copied())
        .spawn()
        .unwrap();

    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    assert_eq!(log.registrations()[0].machine_name, expected);
}

#[rstest]
#[case::flag(&["--runtime", "127.0.0.1:2"], "127.0.0.1:3", 2)]
#[case::ollamas_own_variable(&[], "0.0.0.0:3", 3)]
#[tokio::test]
async fn runtime_comes_from_the_flag_else_from_ollamas_own_variable(
    #[case] flags: &[&str],
    #[case] ollama_host: &str,
    #[case] expected: u16,
) {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();

    let _agent = command(state_dir.path())
        .args(["--coordinator", &coordinator.url().to_string()])
        .args(flags)
        .env("OLLAMA_HOST", ollama_host)
        .spawn()
        .unwrap();

    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    assert_eq!(log.registrations()[0].port, expected);
}

#[rstest]
#[case("4", "", Some(4))]
#[case("0", "", None)]
#[case("auto", "", None)]
#[case("4", "7", Some(7))]
#[tokio::test]
async fn slots_come_from_the_operator_or_from_ollamas_own_variable(
    #[case] num_parallel: &str,
    #[case] capacity: &str,
    #[case] expected: Option<u32>,
) {
    let mut coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&["a:latest"]);
    let state_dir = tempfile::tempdir().unwrap();

    let _agent = command(state_dir.path())
        .args(["--coordinator", &coordinator.url().to_string()])
        .args(["--runtime", &runtime.url().to_string()])
        .env("OLLAMA_NUM_PARALLEL", num_parallel)
        .envs(
            [("OLLAMA_AGENT_CAPACITY", capacity)]
                .into_iter()
                .filter(|(_, set)| !set.is_empty()),
        )
        .spawn()
        .unwrap();

    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    let report = log.registrations()[0].runtime.clone().unwrap();
    assert_eq!(report.slots.map(Into::into), expected);
}

#[rstest]
#[case("OLLAMA_AGENT_HEARTBEAT_INTERVAL", "0", &["--heartbeat-interval", "100ms to 1h"])]
#[case("OLLAMA_AGENT_REGISTER_RETRY_INTERVAL", "-3", &["--register-retry-interval", "100ms to 1h"])]
#[case("OLLAMA_AGENT_CAPACITY", "0", &["--capacity", "1 to 10000"])]
#[case("OLLAMA_AGENT_REGISTER_MAX_ATTEMPTS", "-1", &["--register-max-attempts"])]
#[case("OLLAMA_AGENT_COORDINATOR", "https://hub", &["--coordinator", "https is not supported"])]
#[case("OLLAMA_AGENT_RUNTIME", "ftp://x", &["--runtime", "scheme must be http"])]
#[case("OLLAMA_AGENT_LOG_FORMAT", "xml", &["--log-format", "`human` and `json`"])]
#[case("OLLAMA_HOST", "https://x", &["OLLAMA_HOST", "OLLAMA_AGENT_RUNTIME"])]
#[case("RUST_LOG", "=bad=", &["RUST_LOG", "info,ollama_agent=debug"])]
#[tokio::test]
async fn unusable_value_is_refused_by_name(
    #[case] name: &str,
    #[case] value: &str,
    #[case] expected: &[&str],
) {
    let state_dir = tempfile::tempdir().unwrap();

    let agent = command(state_dir.path())
        .env("OLLAMA_AGENT_COORDINATOR", "127.0.0.1:1")
        .env(name, value)
        .spawn()
        .unwrap();

    let output = ended(agent).await;
    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(2), "{messages}");
    assert!(
        expected.iter().all(|part| messages.contains(part)),
        "{messages}"
    );
}
