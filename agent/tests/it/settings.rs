//! The settings file: what wins, what is refused, what is shown.

use std::path::Path;

use rstest::rstest;
use serde_json::Value;

use crate::support::coordinator::FakeCoordinator;
use crate::support::process::{command, ended, messages};

fn write(state_dir: &Path, settings: &str) {
    std::fs::write(state_dir.join("settings.toml"), settings).unwrap();
}

#[rstest]
#[case::flag(&["--machine-name", "flag"], "environment", "flag", "flag")]
#[case::environment(&[], "environment", "environment", "environment OLLAMA_AGENT_MACHINE_NAME")]
#[case::empty_environment(&[], "", "file", "file")]
#[tokio::test]
async fn flag_wins_over_environment_and_that_over_the_file(
    #[case] flags: &[&str],
    #[case] environment: &str,
    #[case] value: &str,
    #[case] origin: &str,
) {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), "machine_name = \"file\"\n");
    let mut command = command(state_dir.path());
    let command = command
        .args(flags)
        .args(["config", "show", "--json"])
        .env("OLLAMA_AGENT_MACHINE_NAME", environment);

    let output = ended(command.spawn().unwrap()).await;

    let shown: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let name = shown.iter().find(|row| row["setting"] == "machine_name");
    let name = name.unwrap();
    assert_eq!(
        (&name["value"], &name["origin"]),
        (&value.into(), &origin.into())
    );
}

#[tokio::test]
async fn settings_are_shown_with_who_said_them() {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), "coordinator = \"gpu-hub\"\n");
    let mut command = command(state_dir.path());
    command.args(["config", "show", "--origin"]);

    let output = ended(command.spawn().unwrap()).await;

    let shown = String::from_utf8(output.stdout).unwrap();
    let words = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(
        words("coordinator"),
        ["coordinator", "http://gpu-hub:11400", "file"]
    );
    assert_eq!(
        words("runtime"),
        [
            "runtime",
            "http://127.0.0.1:1",
            "environment",
            "OLLAMA_HOST"
        ]
    );
    assert_eq!(words("capacity"), ["capacity", "-", "default"]);
    assert_eq!(
        words("panel"),
        ["panel", "off", "environment", "OLLAMA_AGENT_PANEL"]
    );
}

#[tokio::test]
async fn file_alone_says_where_to_register() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let settings = format!(
        "coordinator = \"{}\"\nmachine_name = \"gpu-02\"\n",
        coordinator.url()
    );
    write(state_dir.path(), &settings);

    let _agent = command(state_dir.path()).spawn().unwrap();

    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    assert_eq!(log.registrations()[0].machine_name, "gpu-02");
}

#[rstest]
#[case("coordinater = \"gpu-hub\"", &["settings.toml, line 1", "did you mean `coordinator`?"])]
#[case("\n\ncapacity = 0", &["settings.toml, line 3", "`capacity`", "1 to 10000"])]
#[tokio::test]
async fn broken_file_stops_the_start_by_file_line_and_key(
    #[case] settings: &str,
    #[case] expected: &[&str],
) {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), settings);

    let output = ended(command(state_dir.path()).spawn().unwrap()).await;

    let messages = messages(&output);
    assert_eq!(output.status.code(), Some(2), "{messages}");
    let all = expected.iter().all(|part| messages.contains(part));
    assert!(all, "{messages}");
}

#[tokio::test]
async fn path_of_the_file_is_told_even_when_it_is_broken() {
    let state_dir = tempfile::tempdir().unwrap();
    write(state_dir.path(), "= broken");
    let mut command = command(state_dir.path());
    command.args(["config", "path"]);

    let output = ended(command.spawn().unwrap()).await;

    let path = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        Path::new(path.trim()),
        state_dir.path().join("settings.toml")
    );
}

#[rstest]
#[case::named(&[("XDG_CONFIG_HOME", "/config")], "/config/ollama-agent/settings.toml")]
#[case::home(&[("HOME", "/home/me")], "/home/me/.config/ollama-agent/settings.toml")]
#[case::relative_is_ignored(
    &[("XDG_CONFIG_HOME", "config"), ("HOME", "/home/me")],
    "/home/me/.config/ollama-agent/settings.toml"
)]
#[cfg(target_os = "linux")]
#[tokio::test]
async fn file_is_where_the_platform_keeps_settings(
    #[case] environment: &[(&str, &str)],
    #[case] expected: &str,
) {
    let state_dir = tempfile::tempdir().unwrap();
    let mut command = command(state_dir.path());
    command
        .args(["config", "path"])
        .env("OLLAMA_AGENT_CONFIG", "")
        .envs(environment.iter().copied());

    let output = ended(command.spawn().unwrap()).await;

    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), expected);
}
