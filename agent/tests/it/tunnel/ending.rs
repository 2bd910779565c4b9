//! A tunnel that ends on purpose, and what still runs in it.

use ollama_agent::status::LinkStatus;

use super::{HeldRuntime, carry_to, held};
use crate::support::agent::config;
use crate::support::coordinator::Answer;
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
async fn other_settings_let_a_running_request_finish_before_they_count() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    let (sender, answer) = carried.begin(&mut runtime).await;
    let mut settings = config(carried.coordinator.url(), carried.state_dir.path());
    settings.machine_name = "renamed".to_owned();

    carried.agent.control().apply(settings);
    carried
        .coordinator
        .wait_for(|log| log.goodbyes().len() == 1)
        .await;
    sender.send("the rest").await.unwrap();
    drop(sender);

    assert_eq!(text(answer.into_body()).await, "the rest");
    let log = carried
        .coordinator
        .wait_for(|log| log.registrations().len() == 2)
        .await;
    let [first, second] = log.registrations()[..] else {
        panic!("there are two: {log:?}");
    };
    assert_eq!(first.agent_id, second.agent_id);
    assert_eq!(second.machine_name, "renamed");
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
