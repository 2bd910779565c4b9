//! A machine whose settings change while it serves: what runs goes on, what comes is answered.

use std::num::NonZeroU32;
use std::time::Duration;

use ollama_agent::Config;
use ollama_simulator::runtime::script::RuntimeScript;

use crate::support::chat::{ask, chat};
use crate::support::coordinator::TestCoordinator;
use crate::support::machine::AgentMachine;

#[tokio::test]
async fn machine_that_is_renamed_again_and_again_loses_no_request() {
    let coordinator = TestCoordinator::new().await;
    let api = coordinator.api;
    let script = RuntimeScript {
        tokens_per_second: NonZeroU32::new(50),
        answer_tokens: NonZeroU32::new(50),
        ..RuntimeScript::default()
    };
    let mut machine = AgentMachine::with(api, "gpu-1", script).await;
    machine.config.timing.drain = Duration::ZERO;
    machine.start();
    machine.wait_until_routable().await;
    let id = api.agents().await[0].id;
    let mut running = api.post("/api/chat", &chat("hi")).await;
    running.next_frame().await.unwrap();

    for round in 1..=3 {
        machine.control().apply(Config {
            machine_name: format!("gpu-1-{round}"),
            capacity: NonZeroU32::new(round + 4),
            ..machine.config.clone()
        });
        ask(api, 2).await;
    }

    let rest = running.text().await;
    assert!(rest.contains("\"done\":true"), "{rest}");
    let agent = api.agent(id).await;
    assert_eq!(agent.machine_name, "gpu-1-3");
    assert_eq!(agent.capacity, NonZeroU32::new(7).map(Into::into));
}
