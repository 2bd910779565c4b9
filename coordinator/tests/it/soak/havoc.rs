//! Somebody who kills, stops and cuts off at random, and writes down when.

use std::time::Duration;

use ollama_simulator::fault_proxy::ProxyFault;
use ollama_simulator::history::{Fact, Recorder};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::support::process::{CoordinatorProcess, Machine};
use crate::support::site::Site;

/// Between two deeds.
const REST: Duration = Duration::from_secs(2);
/// Less than a lease: nothing is to be seen of it.
const MOMENT: Duration = Duration::from_secs(1);
/// Longer than until an agent is noticed to be gone.
const LONG: Duration = Duration::from_secs(8);

pub(super) struct Havoc {
    rng: SmallRng,
    sites: Vec<Site>,
    machine: Machine,
    coordinator: Option<CoordinatorProcess>,
    recorder: Recorder,
    killed: usize,
    disturbed: usize,
    restarts: usize,
}

impl Havoc {
    pub(super) fn new(
        seed: u64,
        sites: Vec<Site>,
        machine: Machine,
        coordinator: CoordinatorProcess,
        recorder: Recorder,
    ) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            sites,
            machine,
            coordinator: Some(coordinator),
            recorder,
            killed: 0,
            disturbed: 0,
            restarts: 0,
        }
    }

    /// Does something to the coordinator or an agent every now and then, at least once to the
    /// coordinator.
    pub(super) async fn wreak(&mut self, lasts: Duration) {
        let begun = Instant::now();
        self.restart_coordinator().await;
        while begun.elapsed() < lasts {
            match self.rng.random_range(0..6) {
                0 => self.restart_coordinator().await,
                _ => self.harm_an_agent().await,
            }
            sleep(REST).await;
        }
    }

    /// Does something to an agent every now and then.
    pub(super) async fn wreak_on_agents(&mut self, lasts: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < lasts {
            self.harm_an_agent().await;
            sleep(REST).await;
        }
    }

    /// Waits until everybody works.
    pub(super) async fn settle(&self) {
        for site in &self.sites {
            site.wait_until_it_works(&self.recorder).await;
        }
    }

    pub(super) fn coordinator(&self) -> &CoordinatorProcess {
        self.coordinator.as_ref().expect("it runs")
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Returns the process of the agent that is left alone.
    pub(super) fn steady_agent(&self) -> u32 {
        self.sites[0].agent.id()
    }

    pub(super) fn said(&self) -> String {
        format!(
            "coordinator restarted {} times, agents killed {} times, stopped or cut off {} times",
            self.restarts, self.killed, self.disturbed
        )
    }

    /// Kills the coordinator, or asks it to stop, and starts it again.
    async fn restart_coordinator(&mut self) {
        let from = self.recorder.now();
        let process = self.coordinator.take().expect("it runs");
        if self.rng.random() {
            process.kill().await;
        } else {
            assert!(process.stop().await.success());
        }
        sleep(MOMENT.mul_f64(self.rng.random())).await;
        self.coordinator = Some(start(&self.machine).await);
        let until = self.recorder.now();
        self.recorder.record(Fact::Away { from, until });
        self.restarts += 1;
        self.settle().await;
    }

    /// Does something to any agent but the first.
    async fn harm_an_agent(&mut self) {
        let which = self.rng.random_range(1..self.sites.len());
        let deed = self.rng.random_range(0..5);
        let site = &mut self.sites[which];
        let name = site.name.clone();
        self.disturbed += usize::from(deed > 1);
        match deed {
            0 | 1 => {
                self.killed += 1;
                self.recorder.silent(&name);
                site.kill().await;
                sleep(if deed == 0 { MOMENT } else { LONG }).await;
                self.recorder.disturbed(&name);
                site.start().await;
            }
            2 => {
                site.agent.signal(Signal::STOP);
                sleep(MOMENT).await;
                site.agent.signal(Signal::CONT);
            }
            3 => {
                site.disturb(ProxyFault::Stall).await;
                sleep(MOMENT).await;
                site.disturb(ProxyFault::None).await;
            }
            _ => {
                self.recorder.disturbed(&name);
                site.disturb(ProxyFault::Reset).await;
                sleep(MOMENT).await;
                site.disturb(ProxyFault::None).await;
            }
        }
        site.wait_until_it_works(&self.recorder).await;
    }
}

/// Starts a coordinator that soon has as much to show of the past as it may.
pub(super) async fn start(machine: &Machine) -> CoordinatorProcess {
    let start = machine.start_with(|command| {
        command.arg("--history-memory=1");
    });
    start.await
}
