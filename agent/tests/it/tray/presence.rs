//! The icon is there when a tray is, and the agent serves in any case.

use super::desktop::Desktop;
use crate::support::coordinator::FakeCoordinator;
use crate::support::runtime::FakeRuntime;

const NAME: &str = "gpu__02 & <co>";

#[tokio::test]
async fn icon_shows_how_the_agent_is() {
    let Some(desktop) = Desktop::start("icon_shows_how_the_agent_is").await else {
        return;
    };
    let (coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&["m:1"]));
    let _panel = desktop.start_panel().await;

    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());

    let item = desktop.item(&agent).await;
    let ready = item.says(&format!("{NAME}: ready")).await;
    assert_eq!(item.id().await, "ollama-agent");
    assert_eq!(item.title().await, "Ollama agent");
    assert_eq!(item.tooltip().await, "gpu_02 &amp; &lt;co&gt;: ready");
    for (width, height, argb) in &ready {
        assert_eq!(
            (width, argb.len()),
            (height, usize::try_from(width * height * 4).unwrap())
        );
    }
    insta::assert_snapshot!(item.menu_text().await);

    let address = runtime.stop().await;
    let attention = item
        .says(&format!("{NAME}: the runtime does not answer"))
        .await;
    let _runtime = FakeRuntime::start_at(address, &["m:1"]);
    let ready_again = item.says(&format!("{NAME}: ready")).await;
    coordinator.stop().await;
    let disconnected = item
        .says(&format!("{NAME}: not connected, trying again"))
        .await;

    assert_ne!(ready, attention);
    assert_ne!(ready, disconnected);
    assert_ne!(attention, disconnected);
    assert_eq!(ready, ready_again);
}

#[tokio::test]
async fn icon_is_there_again_when_the_panel_is() {
    let Some(desktop) = Desktop::start("icon_is_there_again_when_the_panel_is").await else {
        return;
    };
    let (mut coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&[]));
    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    let mut panel = desktop.start_panel().await;
    desktop
        .item(&agent)
        .await
        .says(&format!("{NAME}: ready"))
        .await;

    panel.kill().await.unwrap();
    let served = coordinator.wait_for(|_| true).await.heartbeats().len();
    coordinator
        .wait_for(|log| log.heartbeats().len() > served + 3)
        .await;
    let _panel = desktop.start_panel().await;

    desktop
        .item(&agent)
        .await
        .says(&format!("{NAME}: ready"))
        .await;
    let told = desktop.agent_log().matches("There is no tray").count();
    assert_eq!(told, 2, "{}", desktop.agent_log());
}

#[tokio::test]
async fn icon_appears_with_a_session_bus_that_comes_later() {
    let name = "icon_appears_with_a_session_bus_that_comes_later";
    let Some(mut desktop) = Desktop::start(name).await else {
        return;
    };
    desktop.stop_bus().await;
    let (mut coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&[]));
    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    desktop.start_bus().await;
    let _panel = desktop.start_panel().await;

    desktop
        .item(&agent)
        .await
        .says(&format!("{NAME}: ready"))
        .await;
}

#[tokio::test]
async fn icon_is_there_again_when_the_session_bus_is() {
    let name = "icon_is_there_again_when_the_session_bus_is";
    let Some(mut desktop) = Desktop::start(name).await else {
        return;
    };
    let (coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&[]));
    let mut panel = desktop.start_panel().await;
    let agent = desktop.start_agent(&coordinator.url(), &runtime.url());
    let item = desktop.item(&agent).await;
    item.says(&format!("{NAME}: ready")).await;

    panel.kill().await.unwrap();
    desktop.stop_bus().await;
    desktop.start_bus().await;
    let _panel = desktop.start_panel().await;

    let item = desktop.item(&agent).await;
    item.says(&format!("{NAME}: ready")).await;
    item.click("Until I resume").await;
    item.says(&format!("{NAME}: paused")).await;
}

#[tokio::test]
async fn agent_serves_without_display_and_session_bus() {
    let desktop = Desktop::without_display();
    let (mut coordinator, runtime) = (FakeCoordinator::start(), FakeRuntime::start(&[]));

    let _agent = desktop.start_agent(&coordinator.url(), &runtime.url());

    coordinator.wait_for(|log| log.heartbeats().len() > 3).await;
    let told = desktop.agent_log().matches("There is no tray").count();
    assert_eq!(told, 1, "{}", desktop.agent_log());
}
