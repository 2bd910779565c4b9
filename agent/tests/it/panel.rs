//! The settings panel: what it shows and what it changes.

mod access;

use std::path::Path;

use http::header::{AUTHORIZATION, LOCATION};
use http::{Method, StatusCode};
use ollama_agent::panel::PanelFile;
use serde_json::Value;
use tokio::process::Child;

use crate::support::coordinator::FakeCoordinator;
use crate::support::panel::{Browser, panel_of, send};
use crate::support::process::command;
use crate::support::runtime::FakeRuntime;
use crate::support::server::Reserved;

fn start(state_dir: &Path, arguments: &[&str]) -> Child {
    command(state_dir)
        .args(arguments)
        .env("OLLAMA_AGENT_PANEL", "0")
        .env("XDG_CONFIG_HOME", state_dir)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn agent_without_a_coordinator_waits_for_the_panel_to_name_one() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let before = browser.get("").await;
    let form = format!(
        "action=save&coordinator={}&machine_name=gpu-02",
        coordinator.url()
    );

    let saved = browser.submit("settings", &form).await;

    assert!(before.text.contains("Not set up yet"), "{}", before.text);
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.text);
    let log = coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    assert_eq!(log.registrations()[0].machine_name, "gpu-02");
    let kept = std::fs::read_to_string(state_dir.path().join("settings.toml")).unwrap();
    let expected = format!(
        "coordinator = \"{}\"\nmachine_name = \"gpu-02\"\n",
        coordinator.url()
    );
    assert_eq!(kept, expected);
}

#[tokio::test]
async fn saved_coordinator_is_moved_to_without_a_restart_and_the_old_one_hears_goodbye() {
    let (mut first, mut second) = (FakeCoordinator::start(), FakeCoordinator::start());
    let state_dir = tempfile::tempdir().unwrap();
    let settings = format!("# Mine\ncoordinator = \"{}\"\n", first.url());
    std::fs::write(state_dir.path().join("settings.toml"), settings).unwrap();
    let _agent = start(state_dir.path(), &[]);
    let here = first.wait_for(|log| !log.heartbeats().is_empty()).await;
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let form = format!("action=save&coordinator={}", second.url());

    browser.submit("settings", &form).await;

    let there = second.wait_for(|log| !log.heartbeats().is_empty()).await;
    first.wait_for(|log| log.goodbyes().len() == 1).await;
    assert_eq!(
        here.registrations()[0].agent_id,
        there.registrations()[0].agent_id
    );
    let kept = std::fs::read_to_string(state_dir.path().join("settings.toml")).unwrap();
    assert_eq!(
        kept,
        format!("# Mine\ncoordinator = \"{}\"\n", second.url())
    );
}

#[tokio::test]
async fn file_that_was_edited_by_hand_is_not_in_force_until_it_is_saved() {
    let (mut first, mut second) = (FakeCoordinator::start(), FakeCoordinator::start());
    let state_dir = tempfile::tempdir().unwrap();
    let path = state_dir.path().join("settings.toml");
    std::fs::write(&path, format!("coordinator = \"{}\"\n", first.url())).unwrap();
    let _agent = start(state_dir.path(), &[]);
    first.wait_for(|log| !log.heartbeats().is_empty()).await;
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let in_force = browser.get("").await.text;
    let edited = format!(
        "coordinator = \"{}\"\nlog_format = \"json\"\n",
        second.url()
    );
    std::fs::write(&path, edited).unwrap();

    let before = browser.get("?saved=1").await.text;
    let form = format!("action=save&coordinator={}", second.url());
    let saved = browser.submit("settings", &form).await;

    assert!(!in_force.contains("not in force"), "{in_force}");
    for expected in [
        "not in force: Coordinator.",
        "next start of the agent only: log_format.",
        "Saved. The settings are not in force yet.",
        &format!("<dd>{}</dd>", first.url()),
    ] {
        assert!(before.contains(expected), "{expected}: {before}");
    }
    assert_eq!(saved.header(LOCATION), Some("./?saved=1"));
    second.wait_for(|log| !log.heartbeats().is_empty()).await;
    let after = browser.get("?saved=1").await.text;
    assert!(after.contains("The settings are in force."), "{after}");
    assert!(!after.contains("not in force"), "{after}");
}

#[tokio::test]
async fn connection_test_names_the_first_broken_layer_and_keeps_nothing() {
    let coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&[]);
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let test = async |url: &str| {
        let form = format!("action=test&coordinator={url}&capacity=4");
        let page = browser.submit("settings", &form).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.text.contains("value=\"4\""), "{}", page.text);
        page.text
    };

    let works = test(&coordinator.url().to_string()).await;
    let refused = test(&nowhere.url().to_string()).await;
    let is_ollama = test(&runtime.url().to_string()).await;
    let nonsense = test("ftp://x").await;

    assert!(works.contains("The connection works."), "{works}");
    assert!(
        refused.contains("data-check=\"tcp\" class=\"no\""),
        "{refused}"
    );
    assert!(!refused.contains("data-check=\"http\""), "{refused}");
    assert!(
        is_ollama.contains("it is Ollama, not an Ollama Coordinator"),
        "{is_ollama}"
    );
    assert!(
        nonsense.contains("data-check=\"settings\" class=\"no\""),
        "{nonsense}"
    );
    assert!(!state_dir.path().join("settings.toml").exists());
}

#[tokio::test]
async fn unusable_values_are_shown_again_with_what_is_allowed() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let form = "action=save&coordinator=&machine_name=<b>&runtime=ftp://x&capacity=0";

    let page = browser.submit("settings", form).await;

    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    for expected in [
        "Enter the URL",
        "value=\"&lt;b&gt;\"",
        "scheme must be http",
        "1 to 10000",
    ] {
        assert!(page.text.contains(expected), "{expected}: {}", page.text);
    }
    assert!(!state_dir.path().join("settings.toml").exists());
}

#[tokio::test]
async fn name_that_the_coordinator_would_refuse_is_not_saved() {
    let state_dir = tempfile::tempdir().unwrap();
    let _agent = start(state_dir.path(), &[]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let form = "action=save&coordinator=http://127.0.0.1:1&machine_name=gpu%E2%80%AE1";

    let page = browser.submit("settings", form).await;

    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(page.text.contains("text-direction"), "{}", page.text);
    assert!(!state_dir.path().join("settings.toml").exists());
}

#[tokio::test]
async fn fixed_values_are_shown_with_the_reason_and_cannot_be_changed() {
    let coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let url = coordinator.url().to_string();
    let _agent = start(state_dir.path(), &["--coordinator", &url]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let form = "action=save&coordinator=http://other:1&capacity=4";

    let page = browser.get("").await.text;
    let saved = browser.submit("settings", form).await;

    assert!(page.contains("Fixed by the flag --coordinator"), "{page}");
    assert_eq!(saved.status, StatusCode::SEE_OTHER, "{}", saved.text);
    let kept = std::fs::read_to_string(state_dir.path().join("settings.toml")).unwrap();
    assert_eq!(kept, "capacity = 4\n");
}

#[tokio::test]
async fn buttons_pause_and_resume_sharing() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let url = coordinator.url().to_string();
    let _agent = start(state_dir.path(), &["--coordinator", &url]);
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    let browser = Browser::open(panel_of(state_dir.path()).await).await;

    let paused = browser.submit("pause?for=1h", "").await;
    let page = browser.get("").await.text;
    browser.submit("resume", "").await;

    assert_eq!(paused.header(LOCATION), Some("./"));
    assert!(page.contains("Paused for another 1 h"), "{page}");
    let page = browser.get("").await.text;
    assert!(page.contains("Pause 30 minutes"), "{page}");
}

#[tokio::test]
async fn status_is_told_to_commands_as_json() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let url = coordinator.url().to_string();
    let agent = start(state_dir.path(), &["--coordinator", &url]);
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    let file = panel_of(state_dir.path()).await;
    let bearer = format!("Bearer {}", file.token);

    let page = send(
        &file,
        (Method::GET, "/status"),
        &[(AUTHORIZATION, &bearer)],
        "",
    )
    .await;

    assert_eq!(page.status, StatusCode::OK);
    let status: Value = serde_json::from_str(&page.text).unwrap();
    assert_eq!(status["schema"], "ollama-agent.status/1");
    assert_eq!(status["phase"], "connected");
    assert_eq!(status["coordinator"], url);
    assert_eq!(status["runtime"]["url"], "http://127.0.0.1:1");
    assert_eq!(file.pid, agent.id().unwrap());
}

#[tokio::test]
async fn second_panel_takes_another_port() {
    let state_dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let _first = start(state_dirs[0].path(), &[]);
    let first = panel_of(state_dirs[0].path()).await;
    let port = first.url.rsplit(':').next().unwrap();

    let _second = start(state_dirs[1].path(), &["--panel", port]);

    let second: PanelFile = panel_of(state_dirs[1].path()).await;
    assert_ne!(first.url, second.url);
    let browser = Browser::open(second).await;
    assert_eq!(browser.get("").await.status, StatusCode::OK);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn start_at_login_is_not_offered_beside_a_service() {
    let state_dir = tempfile::tempdir().unwrap();
    let units = state_dir.path().join("systemd/user");
    std::fs::create_dir_all(&units).unwrap();
    std::fs::write(units.join("ollama-agent.service"), "[Service]\n").unwrap();
    let _agent = start(state_dir.path(), &["--coordinator", "http://127.0.0.1:1"]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;

    let page = browser.get("").await.text;

    assert!(!page.contains("start_at_login"), "{page}");
    assert!(page.contains("Starts by itself, as a service"), "{page}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn start_at_login_is_an_entry_of_the_desktop() {
    let coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let url = coordinator.url().to_string();
    let _agent = start(state_dir.path(), &["--coordinator", &url]);
    let browser = Browser::open(panel_of(state_dir.path()).await).await;
    let entry = state_dir.path().join("autostart/ollama-agent.desktop");

    browser
        .submit("settings", "action=save&start_at_login=yes")
        .await;
    let text = std::fs::read_to_string(&entry).unwrap();
    let page = browser.get("").await.text;
    browser.submit("settings", "action=save").await;

    assert!(text.contains(env!("CARGO_BIN_EXE_ollama-agent")), "{text}");
    assert!(text.contains("settings.toml"), "{text}");
    assert!(text.contains(&format!("\"--coordinator={url}\"")), "{text}");
    let own_dir = format!("\"--state-dir={}\"", state_dir.path().display());
    assert!(text.contains(&own_dir), "{text}");
    assert!(page.contains("value=\"yes\" checked"), "{page}");
    assert!(!entry.exists());
}
