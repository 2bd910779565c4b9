//! The coordinator ends and starts again under many streams that come through tunnels.

use std::num::NonZeroU32;
use std::time::Duration;

use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use ollama_simulator::wait::{PATIENCE, wait_for};
use rstest::rstest;
use rustix::process::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::agent_process::AgentHome;
use crate::support::api::Api;
use crate::support::process::Machine;
use crate::support::say;
use crate::support::seen::{Seen, ask};

const STREAMS: usize = 200;
const MACHINES: usize = 4;

#[rstest]
#[case::asked("SIGTERM", Signal::TERM)]
#[case::killed("SIGKILL", Signal::KILL)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coordinator_that_restarts_under_200_streams_ends_each_of_them_explicitly(
    #[case] name: &str,
    #[case] signal: Signal,
) {
    let machine = Machine::new();
    let coordinator = machine.start().await;
    let mut runtimes = Vec::new();
    let mut agents = Vec::new();
    for at in 0..MACHINES {
        let runtime = ScriptedRuntime::start(script()).await.unwrap();
        let home = AgentHome::new(&format!("gpu-{at}"));
        let (coordinator, runtime_url) = (machine.api.url(), runtime.url());
        let told = ["--coordinator", &coordinator, "--runtime", &runtime_url];
        let told: Vec<_> = told.into_iter().chain(["--capacity", "64"]).collect();
        agents.push((home.start(&told, &[]), home));
        runtimes.push(runtime);
    }
    wait_until_all_are_routable(machine.api).await;
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let api = machine.api;
        streams.spawn(async move { ask(api, "hi", true).await.seen });
    }
    let running = async || runtimes.iter().map(ScriptedRuntime::in_flight).sum::<u64>();
    wait_for("200 streams", PATIENCE, running, |running| {
        *running == STREAMS as u64
    })
    .await;

    coordinator.signal(signal);
    coordinator.ended(PATIENCE).await;
    let ended = Instant::now();
    let coordinator = machine.start().await;
    wait_until_all_are_routable(machine.api).await;
    let back = ended.elapsed();

    let mut seen = Seen::default();
    let read = async {
        while let Some(stream) = streams.join_next().await {
            seen.add(stream.unwrap());
        }
    };
    timeout(PATIENCE, read).await.expect("nothing hangs");
    say(&format!(
        "{name} of the coordinator under {STREAMS} streams over {MACHINES} tunnels: {seen:?}; all \
         agents routable {} ms after its end",
        back.as_millis()
    ));
    assert_eq!(seen.silent, 0, "{seen:?}");
    if signal == Signal::TERM {
        assert_eq!(seen.whole, STREAMS, "{seen:?}");
    }
    wait_for("no more streams", PATIENCE, running, |running| {
        *running == 0
    })
    .await;
    for _ in 0..MACHINES {
        assert_eq!(ask(machine.api, "hi", true).await.seen.whole, 1);
    }
    assert!(coordinator.stop().await.success());
}

fn script() -> RuntimeScript {
    RuntimeScript {
        slots: NonZeroU32::MIN.saturating_add(63),
        answer_tokens: NonZeroU32::new(60),
        tokens_per_second: NonZeroU32::new(20),
        first_token_delay: Duration::from_millis(100),
        ..RuntimeScript::default()
    }
}

async fn wait_until_all_are_routable(api: Api) {
    let all = |agents: &Vec<AgentView>| {
        agents.len() == MACHINES && agents.iter().all(|agent| agent.routable)
    };
    wait_for("all are routable", PATIENCE, || api.agents(), all).await;
}
