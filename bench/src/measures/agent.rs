//! The real agent beside a runtime with nothing to do, for as long as the whole run takes, or alone.

use std::time::Duration;

use anyhow::Context as _;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::coordinator::{Coordinator, Leases, start_agent, work_dir};
use crate::load::count;
use crate::machine::Foreign;
use crate::plan::show;
use crate::process::Process;
use crate::table::Aim;

const REGISTERED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const WEIGH_EVERY: Duration = Duration::from_secs(1);

/// A quiet coordinator with one agent.
#[derive(Debug)]
pub(crate) struct Idle {
    coordinator: Coordinator,
    agent: Process,
    foreign: Foreign,
    since: Instant,
    cpu_before: [Duration; 2],
    most_memory: [u64; 2],
    _runtime: ScriptedRuntime,
    _dir: TempDir,
}

/// Starts them and waits until the agent is registered.
pub(crate) async fn start() -> anyhow::Result<Idle> {
    let dir = work_dir()?;
    let runtime = ScriptedRuntime::start(RuntimeScript::default()).await?;
    let data_dir = dir.path().join("data");
    let coordinator = Coordinator::start(&data_dir, Leases::Default).await?;
    let state_dir = dir.path().join("agent");
    let agent = start_agent(&state_dir, coordinator.addr, runtime.addr(), &[])?;
    let deadline = Instant::now() + REGISTERED_WITHIN;
    while coordinator.count("online").await? == 0 {
        anyhow::ensure!(Instant::now() < deadline, "the agent did not register");
        sleep(LOOK_EVERY).await;
    }
    Ok(Idle {
        foreign: Foreign::watch(),
        since: Instant::now(),
        cpu_before: [coordinator.process.cpu(), agent.cpu()],
        most_memory: [0; 2],
        coordinator,
        agent,
        _runtime: runtime,
        _dir: dir,
    })
}

impl Idle {
    /// Shows what they have used, after `at_least` since their start.
    pub(crate) async fn finish(mut self, at_least: Duration) -> anyhow::Result<()> {
        let until = self.since + at_least;
        self.weigh();
        while Instant::now() < until {
            sleep(WEIGH_EVERY).await;
            self.weigh();
        }
        self.show("agent", &self.agent, 1, [12.0, 0.2]);
        let coordinator = &self.coordinator.process;
        self.show("coordinator with one agent", coordinator, 0, [15.0, 1.0]);
        self.agent.stop().await.context("the agent")?;
        self.coordinator
            .process
            .stop()
            .await
            .context("the coordinator")
    }

    fn weigh(&mut self) {
        let now = [self.coordinator.process.memory(), self.agent.memory()];
        for (most, now) in self.most_memory.iter_mut().zip(now) {
            *most = now.max(*most);
        }
    }

    fn show(&self, name: &str, process: &Process, which: usize, [mib, share]: [f64; 2]) {
        let memory = count(self.most_memory[which]) / 1_048_576.0;
        let took = self.since.elapsed().as_secs_f64();
        let cpu = process.cpu().saturating_sub(self.cpu_before[which]);
        let is = 100.0 * cpu.as_secs_f64() / took;
        show(
            &self.foreign,
            &format!("{name}: memory when idle"),
            format!("{memory:.1} MiB"),
            String::new(),
            Aim::AtMost {
                aim: mib,
                is: memory,
                unit: " MiB",
            },
        );
        show(
            &self.foreign,
            &format!("{name}: CPU when idle, {took:.0} s"),
            format!("{is:.2} % of a core"),
            String::new(),
            Aim::AtMost {
                aim: share,
                is,
                unit: " %",
            },
        );
    }
}
