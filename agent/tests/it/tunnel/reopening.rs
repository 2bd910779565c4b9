//! When there is a tunnel, and when there is another one.

use std::time::Duration;

use axum::body::Body;
use h2::Reason;
use ollama_agent::Config;
use ollama_agent::config::{Advertised, Link};
use ollama_agent::status::LinkStatus;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use rstest::rstest;

use super::{HeldRuntime, carry_to, held};
use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::{Answer, FakeCoordinator};
use crate::support::tunnel::{TestTunnel, in_time, reason};

#[tokio::test]
async fn advertised_address_is_registered_and_no_tunnel_is_opened() {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let advertised = Advertised {
        ip: [192, 168, 1, 21].into(),
        port: Some(8080),
    };
    let mut agent = TestAgent::start_with(Config {
        link: Link::Direct {
            advertised: Some(advertised),
        },
        ..config(coordinator.url(), state_dir.path())
    });

    let log = coordinator
        .wait_for(|log| log.heartbeats().len() >= 3)
        .await;

    let registration = log.registrations()[0];
    assert_eq!(registration.link, LinkKind::Direct);
    assert_eq!(registration.ip_address, Some(advertised.ip));
    assert_eq!(registration.port, 8080);
    assert!(log.tunnels().is_empty(), "{log:?}");
    agent
        .wait_for(|status| status.link == LinkStatus::Direct)
        .await;
}

#[tokio::test]
async fn tunnel_is_what_an_agent_registers_unless_told_otherwise() {
    let mut coordinator = FakeCoordinator::start();
    let _agent = TestAgent::start(coordinator.url());

    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;

    assert_eq!(log.registrations()[0].link, LinkKind::Tunnel);
}

#[tokio::test]
async fn cut_tunnel_is_opened_again_and_what_ran_in_it_is_cancelled() {
    let mut runtime = HeldRuntime::start();
    let mut carried = carry_to(runtime.server.url()).await;
    carried
        .coordinator
        .lease(Duration::from_hours(1), Duration::from_hours(2));
    let mut tunnel = carried.tunnel.sender.clone();
    let mut running = Box::pin(tunnel.send_request(held()));
    let mut held = tokio::select! {
        held = runtime.next() => held,
        _ = &mut running => panic!("nobody has answered"),
    };
    let status = carried
        .agent
        .wait_for(|status| status.link == LinkStatus::TunnelUp);
    assert_eq!(status.await.last_error, None);

    drop(carried.tunnel);

    in_time(held.answer.closed()).await;
    let mut another = carried.coordinator.tunnel().await;
    assert_eq!(another.get("/absent").await.status(), 404);
}

#[tokio::test]
async fn tunnel_that_is_up_again_has_the_lease_renewed_at_once() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(Duration::from_mins(5), Duration::from_mins(15));
    let _agent = TestAgent::start(coordinator.url());

    drop(coordinator.tunnel().await);

    let _another = coordinator.tunnel().await;
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
}

#[tokio::test]
async fn refused_tunnel_has_the_session_find_out_and_waits_for_it() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(Duration::from_mins(5), Duration::from_mins(15));
    coordinator.answer_tunnels([Answer::Problem(404, "unknown_agent")]);
    coordinator.answer_heartbeats([Answer::Problem(409, "duplicate_identity")]);
    let _agent = TestAgent::start(coordinator.url());

    let mut tunnel = coordinator.tunnel().await;

    assert_eq!(
        reason(&tunnel_error(&mut tunnel).await),
        Some(Reason::REFUSED_STREAM)
    );
    let log = coordinator.wait_for(|log| log.tunnels().len() == 2).await;
    let registered: Vec<_> = log
        .registrations()
        .iter()
        .map(|r| (r.agent_id, r.session))
        .collect();
    let tunnels: Vec<_> = log
        .tunnels()
        .into_iter()
        .map(|(id, s)| (Some(id), Some(s)))
        .collect();
    assert_eq!(registered, tunnels, "{log:?}");
    assert_ne!(tunnels[0], tunnels[1]);
}

/// Sends a request to an agent whose runtime is missing.
async fn tunnel_error(tunnel: &mut TestTunnel) -> hyper::Error {
    let request = http::Request::get("http://a/").body(Body::empty()).unwrap();
    tunnel.send(request).await.unwrap_err()
}

#[rstest]
#[case::unknown(Answer::Problem(404, "unknown_agent"))]
#[case::not_now(Answer::Problem(503, "unavailable"))]
#[case::proxy_without_upgrades(Answer::Problem(426, "upgrade_required"))]
#[case::web_page(Answer::Text(200, "text/html", "<title>Campus login</title>"))]
#[tokio::test]
async fn refused_tunnel_is_tried_again_with_the_next_renewal(#[case] answer: Answer) {
    let mut coordinator = FakeCoordinator::start();
    coordinator.answer_tunnels([answer.clone(), answer]);
    let mut agent = TestAgent::start(coordinator.url());

    let _tunnel = coordinator.tunnel().await;

    agent
        .wait_for(|status| status.link == LinkStatus::TunnelUp)
        .await;
    let log = coordinator.wait_for(|log| log.tunnels().len() == 3).await;
    assert_eq!(log.registrations().len(), 1);
}
