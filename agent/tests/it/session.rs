//! Joining, staying, coming back and leaving.

use std::time::Duration;

use ollama_agent::AgentError;
use ollama_agent::status::Phase;
use ollama_coordinator_common::protocol::runtime::RuntimeStatus;
use rstest::rstest;

use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::{Answer, FakeCoordinator, Log, Message, Said};
use crate::support::runtime::FakeRuntime;
use crate::support::server::Reserved;

#[tokio::test]
async fn agent_waits_for_a_coordinator_that_is_not_there_yet() {
    let reserved = Reserved::new();
    let mut agent = TestAgent::start(reserved.url());
    let waiting = agent
        .wait_for(|status| matches!(status.phase, Phase::Joining { attempts: 3.. }))
        .await;

    let mut coordinator = FakeCoordinator::start_at(reserved);

    coordinator
        .wait_for(|log| log.heartbeats().len() >= 2)
        .await;
    let connected = agent
        .wait_for(|s| matches!(s.phase, Phase::Connected { .. }))
        .await;
    let error = waiting.last_error.unwrap();
    assert!(error.contains("no coordinator runs here"), "{error}");
    assert_eq!(connected.last_error, None);
}

#[tokio::test]
async fn registration_says_who_and_what_this_is() {
    let mut coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&["a:latest"]);
    let state_dir = tempfile::tempdir().unwrap();
    let mut config = config(coordinator.url(), state_dir.path());
    config.runtime = runtime.url();
    config.machine_name = "gpu-02".to_owned();

    let mut agent = TestAgent::start_with(config);

    let log = coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    let status = agent.wait_for(|status| status.agent_id.is_some()).await;
    let registration = log.registrations()[0];
    assert_eq!(registration.machine_name, "gpu-02");
    assert_eq!(registration.port, runtime.url().port());
    assert_eq!(registration.ollama_version.as_deref(), Some("0.12.6"));
    assert_eq!(registration.ip_address, Some([127, 0, 0, 1].into()));
    assert_eq!(registration.agent_id, status.agent_id);
    assert_eq!(
        registration.agent_version.as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert!(registration.system_info.as_ref().unwrap().memory_bytes > Some(0));
    let report = registration.runtime.as_ref().unwrap();
    assert_eq!(report.status, RuntimeStatus::Running);
    assert_eq!(report.models[0].name, "a:latest");
    let heartbeat = log.heartbeats()[0];
    assert_eq!(heartbeat.session, registration.session);
    assert_eq!(heartbeat.epoch, Some(7));
    assert_eq!(heartbeat.runtime, None);
}

#[tokio::test]
async fn every_message_carries_the_same_secret() {
    let mut coordinator = FakeCoordinator::start();
    let agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| log.heartbeats().len() >= 2)
        .await;

    agent.stop().await.unwrap();

    let log = coordinator.wait_for(|log| !log.goodbyes().is_empty()).await;
    let secret = log.0[0].bearer.as_deref().unwrap();
    assert_eq!(secret.len(), 64);
    assert!(
        log.0
            .iter()
            .all(|message| message.bearer.as_deref() == Some(secret)),
        "{log:?}"
    );
}

#[tokio::test]
async fn heartbeats_are_numbered_and_bring_the_load_now_and_then() {
    let mut coordinator = FakeCoordinator::start();
    let _agent = TestAgent::start(coordinator.url());

    let has_metrics = |log: &Log| {
        log.heartbeats()
            .iter()
            .filter(|beat| beat.metrics.is_some())
            .count()
            >= 3
    };
    let log = coordinator.wait_for(has_metrics).await;

    let numbers: Vec<u64> = log
        .heartbeats()
        .iter()
        .map(|beat| beat.seq.unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert!(
        log.heartbeats().iter().any(|beat| beat.metrics.is_none()),
        "{log:?}"
    );
}

#[tokio::test]
async fn unknown_agent_registers_again_with_the_same_id() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.answer_heartbeats([Answer::Problem(404, "unknown_agent")]);

    let _agent = TestAgent::start(coordinator.url());

    let log = coordinator
        .wait_for(|log| log.registrations().len() == 2)
        .await;
    let registrations = log.registrations();
    assert_eq!(registrations[0].agent_id, registrations[1].agent_id);
    assert_eq!(registrations[0].session, registrations[1].session);
    assert_eq!(registrations[1].epoch, Some(7));
    coordinator
        .wait_for(|log| log.heartbeats().len() >= 3)
        .await;
}

#[rstest]
#[case::while_registering(true)]
#[case::while_registered(false)]
#[tokio::test]
async fn duplicate_identity_makes_a_new_id_and_remembers_the_old(#[case] while_registering: bool) {
    let mut coordinator = FakeCoordinator::start();
    let refusal = [Answer::Problem(409, "duplicate_identity")];
    if while_registering {
        coordinator.answer_registrations(refusal);
    } else {
        coordinator.answer_heartbeats(refusal);
    }
    let state_dir = tempfile::tempdir().unwrap();

    let agent = TestAgent::start_with(config(coordinator.url(), state_dir.path()));
    let log = coordinator
        .wait_for(|log| log.registrations().len() == 2)
        .await;
    agent.stop().await.unwrap();
    coordinator.forget_log();
    let _restarted = TestAgent::start_with(config(coordinator.url(), state_dir.path()));

    let registrations = log.registrations();
    let (old, new) = (registrations[0], registrations[1]);
    assert_ne!(old.agent_id, new.agent_id);
    assert_eq!(new.cloned_from, old.agent_id);
    let (old_secret, new_secret) = (&log.0[0].bearer, &log.0.last().unwrap().bearer);
    assert_ne!(old_secret, new_secret);
    let log = coordinator
        .wait_for(|log| !log.registrations().is_empty())
        .await;
    assert_eq!(log.registrations()[0].agent_id, new.agent_id);
}

#[tokio::test]
async fn goodbye_is_said_on_shutdown() {
    let mut coordinator = FakeCoordinator::start();
    let mut agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    let id = agent
        .wait_for(|status| status.agent_id.is_some())
        .await
        .agent_id;

    agent.stop().await.unwrap();

    let log = coordinator.wait_for(|log| !log.goodbyes().is_empty()).await;
    assert_eq!(log.goodbyes(), [id.unwrap()]);
    assert!(
        matches!(log.0.last().unwrap().said, Said::Goodbye(_)),
        "{log:?}"
    );
    let is_from_another = |message: &Message| match &message.said {
        Said::Heartbeat(sender, _) => Some(*sender) != id,
        Said::Register(_) | Said::Goodbye(_) | Said::Tunnel(..) => false,
    };
    assert!(!log.0.iter().any(is_from_another), "{log:?}");
}

#[tokio::test]
async fn goodbye_does_not_wait_for_a_heartbeat_without_an_answer() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.answer_heartbeats([Answer::Never]);
    let agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    agent.stop().await.unwrap();

    coordinator.wait_for(|log| log.goodbyes().len() == 1).await;
}

#[tokio::test]
async fn agent_without_a_coordinator_stops_at_once() {
    let nowhere = Reserved::new();
    let mut agent = TestAgent::start(nowhere.url());
    agent
        .wait_for(|status| matches!(status.phase, Phase::Joining { attempts: 1.. }))
        .await;

    agent.stop().await.unwrap();
}

#[tokio::test]
async fn whole_report_is_sent_again_when_the_coordinator_changed() {
    let mut coordinator = FakeCoordinator::start();
    let runtime = FakeRuntime::start(&["a:latest"]);
    let state_dir = tempfile::tempdir().unwrap();
    let mut config = config(coordinator.url(), state_dir.path());
    config.runtime = runtime.url();
    let _agent = TestAgent::start_with(config);
    let log = coordinator
        .wait_for(|log| log.heartbeats().len() >= 3)
        .await;
    assert!(
        log.heartbeats().iter().all(|beat| beat.runtime.is_none()),
        "{log:?}"
    );

    coordinator.change_instance();

    let reported = |log: &Log| log.heartbeats().iter().any(|beat| beat.runtime.is_some());
    let log = coordinator.wait_for(reported).await;
    assert_eq!(log.registrations().len(), 1);
    let count = log.heartbeats().len();
    let log = coordinator
        .wait_for(|log| log.heartbeats().len() >= count + 2)
        .await;
    let reports = log
        .heartbeats()
        .iter()
        .filter(|beat| beat.runtime.is_some())
        .count();
    assert_eq!(reports, 1, "{log:?}");
}

#[tokio::test]
async fn coordinator_that_was_away_is_found_again_without_a_registration() {
    let mut coordinator = FakeCoordinator::start();
    let mut agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let reserved = coordinator.stop().await;
    let away = agent
        .wait_for(|status| matches!(status.phase, Phase::Disconnected { failures: 2.. }))
        .await;
    let mut coordinator = FakeCoordinator::start_at(reserved);

    let log = coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
    agent
        .wait_for(|status| matches!(status.phase, Phase::Connected { .. }))
        .await;
    assert!(log.registrations().is_empty(), "{log:?}");
    assert!(away.last_error.is_some());
}

#[tokio::test]
async fn agent_keeps_trying_long_after_its_lease_ran_out() {
    let mut coordinator = FakeCoordinator::start();
    coordinator.lease(Duration::from_millis(10), Duration::from_millis(20));
    let mut agent = TestAgent::start(coordinator.url());
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;

    let reserved = coordinator.stop().await;
    agent
        .wait_for(|s| matches!(s.phase, Phase::Disconnected { failures: 10.. }))
        .await;
    let mut coordinator = FakeCoordinator::start_at(reserved);

    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
}

#[rstest]
#[case::wrong_secret(Answer::Problem(403, "wrong_secret"), "another secret")]
#[case::not_allowed(Answer::Problem(400, "address_not_allowed"), "as scripted")]
#[case::not_now(Answer::Problem(503, "unavailable"), "cannot do this now")]
#[case::web_page(
    Answer::Text(200, "text/html", "<html><title>Campus login</title></html>"),
    "a web page (title \"Campus login\"), not an Ollama Coordinator"
)]
#[case::nonsense(
    Answer::Text(200, "application/json", "[1, 2"),
    "not an Ollama Coordinator (status 200 OK)"
)]
#[tokio::test]
async fn refusal_is_shown_and_tried_again(#[case] answer: Answer, #[case] expected: &str) {
    let mut coordinator = FakeCoordinator::start();
    coordinator.answer_registrations([answer.clone(), answer.clone(), answer]);

    let mut agent = TestAgent::start(coordinator.url());

    let refused = agent.wait_for(|status| status.last_error.is_some()).await;
    let error = refused.last_error.unwrap();
    assert!(error.contains(expected), "{error}");
    coordinator
        .wait_for(|log| !log.heartbeats().is_empty())
        .await;
}

#[tokio::test]
async fn ollama_in_place_of_a_coordinator_is_named() {
    let runtime = FakeRuntime::start(&[]);

    let mut agent = TestAgent::start(runtime.url());

    let refused = agent.wait_for(|status| status.last_error.is_some()).await;
    let error = refused.last_error.unwrap();
    assert!(
        error.contains("it is Ollama, not an Ollama Coordinator"),
        "{error}"
    );
}

#[tokio::test]
async fn limited_attempts_end_the_agent() {
    let nowhere = Reserved::new();
    let state_dir = tempfile::tempdir().unwrap();
    let mut config = config(nowhere.url(), state_dir.path());
    config.register_max_attempts = 3;

    let error = TestAgent::start_with(config).ended().await.unwrap_err();

    assert!(
        matches!(error, AgentError::AttemptsUsed { attempts: 3, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("no coordinator runs here"),
        "{error}"
    );
    assert_eq!(error.exit_code(), 3);
}
