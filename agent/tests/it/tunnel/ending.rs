//! A tunnel that ends on purpose, and what still runs in it.

use std::time::Duration;

use ollama_agent::Config;
use ollama_agent::status::LinkStatus;

use super::{HeldRuntime, carry_to, carry_with, held};
use crate::support::agent::config;
use crate::support::coordinator::{Answer, FakeCoordinator};
use crate::support::tunnel::{in_time, next, text};

#[tokio::test]
async fn new_registration_brings_a_new_tunnel_and_what_runs_in_the_old_one_goes_on() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let (sender, answer) = carried.begin(&mut runtime).await;

    carried
        .coordinator
        .answer_heartbeats([Answer::Problem(404, "unknown_agent")]);

    let mut another = carried.coordinator.tunnel().await;
    assert_eq!(another.get("/absent").await.status(), 404);
    sender.send("still here").await.unwrap();
    drop(sender);
    assert_eq!(text(answer.into_body()).await, "still here");
    carried.tunnel.closed().await;
}

#[tokio::test]
async fn end_lets_a_running_request_finish_and_takes_no_further_ones() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let (sender, answer) = carried.begin(&mut runtime).await;

    carried.agent.ask_to_stop();
    carried
        .coordinator
        .wait_for(|log| log.goodbyes().len() == 1)
        .await;
    let mut status = carried.agent;
    status
        .wait_for(|status| status.link == LinkStatus::TunnelDown)
        .await;
    sender.send("the rest").await.unwrap();
    drop(sender);

    assert_eq!(text(answer.into_body()).await, "the rest");
    status.ended().await.unwrap();
    assert!(carried.tunnel.send(held()).await.is_err());
}

#[tokio::test]
async fn other_settings_count_at_once_and_what_runs_goes_on_however_long_it_takes() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_with(|config| {
        config.runtime = runtime.server.url();
        config.timing.drain = Duration::ZERO;
    })
    .await;
    let (sender, answer) = carried.begin(&mut runtime).await;

    carried.agent.control().apply(Config {
        machine_name: "renamed".to_owned(),
        runtime: runtime.server.url(),
        ..config(carried.coordinator.url(), carried.state_dir.path())
    });
    let mut another = carried.coordinator.tunnel().await;
    assert_eq!(another.get("/absent").await.status(), 404);
    let told = carried.agent.wait_for(|status| status.finishing == 1).await;
    sender.send("the rest").await.unwrap();
    drop(sender);

    assert_eq!(text(answer.into_body()).await, "the rest");
    carried.agent.wait_for(|status| status.finishing == 0).await;
    assert_eq!((told.running, &*told.machine_name), (0, "renamed"));
    let log = carried.coordinator.wait_for(|_| true).await;
    let [first, second] = log.registrations()[..] else {
        panic!("there are two: {log:?}");
    };
    assert_eq!(first.agent_id, second.agent_id);
    assert_eq!(second.machine_name, "renamed");
    assert_eq!(log.goodbyes().len(), 1);
}

#[tokio::test]
async fn another_coordinator_is_asked_while_a_request_of_the_one_before_runs() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let mut other = FakeCoordinator::start();
    let (sender, answer) = carried.begin(&mut runtime).await;

    carried.agent.control().apply(Config {
        runtime: runtime.server.url(),
        ..config(other.url(), carried.state_dir.path())
    });
    let mut another = other.tunnel().await;
    assert_eq!(another.get("/absent").await.status(), 404);
    carried.agent.ask_to_stop();
    other.wait_for(|log| log.goodbyes().len() == 1).await;
    sender.send("the rest").await.unwrap();
    drop(sender);

    assert_eq!(text(answer.into_body()).await, "the rest");
    carried.agent.ended().await.unwrap();
    let before = carried.coordinator.wait_for(|_| true).await;
    assert_eq!(before.goodbyes().len(), 1);
}

#[tokio::test]
async fn settings_that_say_the_same_change_nothing() {
    let mut carried = carry_with(|_| {}).await;
    let settings = Config {
        runtime: carried.agent.wait_for(|_| true).await.runtime.url,
        ..config(carried.coordinator.url(), carried.state_dir.path())
    };
    let beats = carried
        .coordinator
        .wait_for(|_| true)
        .await
        .heartbeats()
        .len();

    carried.agent.control().apply(settings);

    let log = carried
        .coordinator
        .wait_for(|log| log.heartbeats().len() > beats + 3)
        .await;
    assert_eq!((log.registrations().len(), log.goodbyes().len()), (1, 0));
}

#[tokio::test]
async fn second_request_to_stop_cuts_what_runs() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let (sender, answer) = carried.begin(&mut runtime).await;
    sender.send("begun").await.unwrap();
    let mut answer = answer.into_body();
    assert_eq!(next(&mut answer).await.unwrap().unwrap(), "begun");

    carried.agent.ask_to_stop();
    carried
        .coordinator
        .wait_for(|log| log.goodbyes().len() == 1)
        .await;
    carried.agent.stop().await.unwrap();

    assert!(next(&mut answer).await.unwrap().is_err());
    in_time(sender.closed()).await;
}
