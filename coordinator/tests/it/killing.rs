//! Steady load on three machines of which one after another fails: whoever has not yet received a
//! byte notices nothing, whoever has is told.
//!
//! `OLLAMA_COORDINATOR_KILLS` (how many) and `OLLAMA_COORDINATOR_KILL_EVERY` (seconds between two)
//! set the size of the run; the defaults are those of a quick one.

use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use rstest::rstest;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::support::agent::FakeAgent;
use crate::support::api::Api;
use crate::support::coordinator::TestCoordinator;
use crate::support::seen::{Seen, ask_until};
use crate::support::{say, setting};

const CLIENTS: usize = 24;
const MACHINES: usize = 3;

#[rstest]
#[case::killed("killed", FailureMode::Refuse)]
#[case::reset("reset after 300 bytes", FailureMode::Reset { after_bytes: 300 })]
#[case::reset_at_once("reset at once", FailureMode::Reset { after_bytes: 0 })]
#[case::stalled("stalled after 300 bytes", FailureMode::Stall { after_bytes: 300 })]
#[case::silent("silent", FailureMode::Stall { after_bytes: 0 })]
#[case::server_error("500", FailureMode::Status(StatusCode::INTERNAL_SERVER_ERROR))]
#[case::slow("20 times slower", FailureMode::Slow { factor: NonZeroU32::MIN.saturating_add(19) })]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_machine_costs_no_request_that_has_not_begun(
    #[case] name: &str,
    #[case] failure: FailureMode,
) {
    let kills = setting("OLLAMA_COORDINATOR_KILLS", 3);
    let every = Duration::from_secs(setting("OLLAMA_COORDINATOR_KILL_EVERY", 3));
    let flags = ["--first-byte-timeout=1s", "--idle-timeout=1s"];
    let coordinator = TestCoordinator::builder().flags(&flags).start().await;
    let machines = machines(coordinator.api).await;
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(ask_until(coordinator.api, client % 2 == 0, stop.clone()));
    }

    for kill in 0..kills {
        let machine = &machines[usize::try_from(kill).unwrap() % MACHINES];
        sleep(every / 2).await;
        machine.set_failure(failure).await;
        sleep(every / 2).await;
        machine.set_failure(FailureMode::None).await;
    }
    stop.cancel();
    let mut seen = Seen::default();
    while let Some(client) = clients.join_next().await {
        seen.add(client.unwrap());
    }

    let Seen {
        whole,
        told,
        failed,
        broken,
        silent,
    } = seen;
    say(&format!(
        "{name}, {kills} times, one of {MACHINES} machines, every {} s: {whole} answers whole, \
         {failed} failed before the first byte, {told} broken streams said so, {} did not",
        every.as_secs(),
        broken + silent
    ));
    assert!(whole > 0, "nothing was answered");
    assert_eq!((failed, broken, silent), (0, 0, 0), "{seen:?}");
    let id = coordinator.api.agents().await[0].id;
    let is_idle =
        |agent: &ollama_coordinator_common::protocol::view::AgentView| agent.in_flight == 0;
    coordinator.api.wait_for_agent(id, "idle", is_idle).await;
}

async fn machines(api: Api) -> Vec<ScriptedRuntime> {
    let mut machines = Vec::new();
    for machine in 0..MACHINES {
        let script = RuntimeScript {
            slots: NonZeroU32::MIN.saturating_add(31),
            answer_tokens: NonZeroU32::new(20),
            tokens_per_second: NonZeroU32::new(400),
            ..RuntimeScript::default()
        };
        let runtime = ScriptedRuntime::start(script)
            .await
            .expect("a port is free");
        let mut agent = FakeAgent::in_front_of(&runtime, &format!("gpu-{machine}"));
        agent.report.slots = Some(runtime.script().slots);
        agent.join(api).await;
        machines.push(runtime);
    }
    machines
}
