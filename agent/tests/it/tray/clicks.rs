//! Each click does what it says.

use super::desktop::{Desktop, eventually};
use crate::support::coordinator::{FakeCoordinator, Log};
use crate::support::process::ended;
use crate::support::runtime::FakeRuntime;

const NAME: &str = "gpu__02 & <co>";

/// Returns whether the coordinator was last told to send nothing.
fn is_paused(log: &Log) -> bool {
    let last = log.heartbeats().last().copied();
    last.is_some_and(|heartbeat| heartbeat.paused.is_some())
}

#[tokio::test]
async fn every_click_does_what_it_says() {
    let Some(desktop) = Desktop::start("every_click_does_what_it_says").await else {
        return;
    };
    let (mut coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&["m:1"]));
    let _panel = desktop.start_panel().await;
    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());
    let item = desktop.item(&agent).await;
    let ready = item.says(&format!("{NAME}: ready")).await;

    item.click("Open dashboard").await;
    assert_eq!(
        desktop.written("opened").await,
        format!("{}\n", coordinator.url())
    );
    desktop.forget("opened");

    item.click("Open this machine's settings").await;
    let settings = desktop.written("opened").await;
    assert!(settings.starts_with("http://127.0.0.1:"), "{settings}");
    assert!(!settings.contains(&desktop.panel().token), "{settings}");
    desktop.forget("opened");

    item.click("Copy diagnostics").await;
    let diagnostics = desktop.written("clipboard").await;
    assert!(diagnostics.contains("gpu_02 & <co>"), "{diagnostics}");

    item.click("Until I resume").await;
    let paused = item.says(&format!("{NAME}: paused")).await;
    assert_ne!(paused, ready);
    coordinator.wait_for(is_paused).await;

    item.click("Resume sharing").await;
    item.says(&format!("{NAME}: ready")).await;
    coordinator.wait_for(|log| !is_paused(log)).await;

    item.click("Quit").await;
    let output = ended(agent).await;
    assert!(output.status.success(), "{}", desktop.agent_log());
    assert_eq!(
        coordinator
            .wait_for(|log| !log.goodbyes().is_empty())
            .await
            .goodbyes()
            .len(),
        1
    );
}

#[tokio::test]
async fn pause_of_half_an_hour_says_when_it_ends() {
    let Some(desktop) = Desktop::start("pause_of_half_an_hour_says_when_it_ends").await else {
        return;
    };
    let (coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&["m:1"]));
    let _panel = desktop.start_panel().await;
    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());
    let item = desktop.item(&agent).await;
    item.says(&format!("{NAME}: ready")).await;

    item.click("30 minutes").await;

    let until = format!("{NAME}: paused until ");
    eventually("the end of the pause", async || {
        let first = item.menu().await.swap_remove(0).label;
        first.starts_with(&until).then_some(())
    })
    .await;
}

#[tokio::test]
async fn diagnostics_are_shown_where_there_is_no_clipboard() {
    let name = "diagnostics_are_shown_where_there_is_no_clipboard";
    let Some(desktop) = Desktop::start(name).await else {
        return;
    };
    desktop.break_clipboard();
    let (coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&["m:1"]));
    let _panel = desktop.start_panel().await;
    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());
    let item = desktop.item(&agent).await;

    item.click("Copy diagnostics").await;

    let file = desktop.written("opened").await;
    let diagnostics = std::fs::read_to_string(file.trim_end()).unwrap();
    assert!(diagnostics.contains("gpu_02 & <co>"), "{diagnostics}");
}

#[tokio::test]
async fn second_start_shows_the_settings_of_the_first() {
    let desktop = Desktop::without_display();
    let (mut coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&["m:1"]));
    let _first = desktop.start_agent(&coordinator.url(), &runtime.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let second = desktop.start_agent(&coordinator.url(), &runtime.url());

    let output = ended(second).await;
    assert!(output.status.success(), "{}", desktop.agent_log());
    let settings = desktop.written("opened").await;
    assert!(settings.starts_with("http://127.0.0.1:"), "{settings}");
    assert!(!settings.contains(&desktop.panel().token), "{settings}");
}
