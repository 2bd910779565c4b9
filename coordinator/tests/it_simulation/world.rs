//! The world: one clock, one order of events, and everything that happens in it from one seed.

mod agents;
mod coordinating;
mod network;
mod tunnels;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ollama_agent::session::machine::Rules;
use ollama_agent::session::state::Event as SessionEvent;
use ollama_coordinator::registry::agent::{Moment, TunnelId};
use ollama_coordinator::registry::lease::LeasePolicy;
use ollama_coordinator::registry::table::{ReachCheck, Unsaved};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::AgentStatus;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use crate::checker::{Checker, Rule};
use crate::coordinator::Coordinator;
use crate::disk::Disk;
use crate::faults::{Fault, OfMachine};
use crate::machine::{Machine, rules};
use crate::message::{Exchange, ProcessId, Reply, Request};

const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// A coordinator that was paused gets the time to notice.
const AFTER_PAUSE: Duration = Duration::from_millis(300);
const TRACE: usize = 2_000;

/// What is broken on purpose, to show that it is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sabotage {
    None,
    /// The disk says that it has synced, and has not.
    UnsyncedDisk,
    /// One agent is lost by a restart.
    ForgetfulRestart,
    /// Heartbeats are taken for heard and are not.
    DeafCoordinator,
    /// Nobody looks at leases.
    NoReaper,
    /// The network invents heartbeats of the session before.
    ForgedHeartbeats,
    /// Agents give up at the first failure.
    FaintHearts,
}

/// What one seed leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) machines: usize,
    pub(crate) policy: LeasePolicy,
    pub(crate) faults_end: Duration,
    pub(crate) end: Duration,
}

#[derive(Debug)]
enum Event {
    /// The time that a process waited for has come, or its answer does not.
    Due(Exchange),
    GivesUp(Exchange),
    Answers(Exchange, Reply),
    Dials(ProcessId),
    Arrives(Exchange, Request),
    Tick(u32),
    Committed(u32),
    Save(u32, Unsaved),
    Looked(u32, ReachCheck, bool),
    Fault(Fault),
    Check,
}

pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) sabotage: Sabotage,
    pub(crate) now: Duration,
    pub(crate) rng: SmallRng,
    pub(crate) machines: Vec<Machine>,
    pub(crate) coordinator: Option<Coordinator>,
    pub(crate) coordinator_runs: u32,
    pub(crate) coordinator_paused_until: Duration,
    pub(crate) disk: Disk,
    pub(crate) disk_delay: Duration,
    pub(crate) wall_offset: TimeDelta,
    pub(crate) checker: Checker,
    pub(crate) trace: Option<VecDeque<String>>,
    pub(crate) digest: u64,
    rules: Rules,
    base: Instant,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    saves_soon: bool,
    /// The session that registered last as each agent.
    sessions: BTreeMap<AgentId, SessionId>,
    /// Since when a tunnel has not carried anything.
    silent_tunnels: BTreeMap<TunnelId, Duration>,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage, traced: bool) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let setting = Setting::random(&mut rng);
        let mut world = Self {
            setting,
            sabotage,
            now: Duration::ZERO,
            machines: Vec::new(),
            coordinator: None,
            coordinator_runs: 0,
            coordinator_paused_until: Duration::ZERO,
            disk: Disk::new(sabotage != Sabotage::UnsyncedDisk),
            disk_delay: Duration::ZERO,
            wall_offset: TimeDelta::zero(),
            checker: Checker::default(),
            trace: traced.then(VecDeque::new),
            digest: 0,
            rules: rules(),
            base: Instant::now(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            saves_soon: false,
            sessions: BTreeMap::new(),
            silent_tunnels: BTreeMap::new(),
            rng,
        };
        world.populate();
        world
    }

    fn populate(&mut self) {
        self.start_coordinator();
        let all_at_once = self.rng.random_bool(0.3);
        for number in 0..self.setting.machines {
            let link = if self.rng.random_bool(0.5) {
                LinkKind::Direct
            } else {
                LinkKind::Tunnel
            };
            self.machines.push(Machine::new(number, link));
            let spread = Duration::from_secs(if all_at_once { 0 } else { 10 });
            let at = self.rng.random_range(Duration::ZERO..=spread);
            self.schedule(
                at,
                Event::Fault(Fault::Machine(number, OfMachine::ProcessStarts)),
            );
        }
        self.checker.totals.machines += self.setting.machines as u64;
        self.schedule(CHECK_INTERVAL, Event::Check);
        for (at, fault) in Fault::plan(&self.setting, &mut self.rng) {
            self.checker.totals.faults += 1;
            self.schedule(at, Event::Fault(fault));
        }
    }

    /// Lets everything happen, until the first broken rule.
    pub(crate) fn run(&mut self) {
        let mut is_healed = false;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            if !is_healed && at >= self.setting.faults_end {
                is_healed = true;
                self.now = self.setting.faults_end;
                self.heal();
            }
            if at > self.setting.end || !self.checker.violations.is_empty() {
                break;
            }
            self.now = at;
            let event = self.events.remove(&number).expect("an event happens once");
            self.checker.totals.events += 1;
            self.handle(event);
        }
        self.judge_the_end();
    }

    fn handle(&mut self, event: Event) {
        self.note(&event);
        match event {
            Event::Due(exchange) => self.feed_if_current(exchange, SessionEvent::Due),
            Event::GivesUp(exchange) => self.give_up(exchange),
            Event::Answers(exchange, reply) => self.take_answer(exchange, reply),
            Event::Dials(process) => self.dial_tunnel(process),
            Event::Arrives(exchange, request) => self.arrive(exchange, request),
            Event::Tick(run) => self.tick(run),
            Event::Committed(run) => {
                if let Some(event) = self.unless_paused(Event::Committed(run)) {
                    drop(event);
                    let (now, moment) = (self.now, self.moment());
                    self.with_run(run, |coordinator| coordinator.finish_commit(now, moment));
                }
            }
            Event::Save(run, which) => self.save(run, which),
            Event::Looked(run, check, found) => {
                if self
                    .unless_paused(Event::Looked(run, check, found))
                    .is_some()
                {
                    self.looked(run, check, found);
                }
            }
            Event::Fault(fault) => self.apply(fault),
            Event::Check => {
                self.check();
                self.schedule(self.now + CHECK_INTERVAL, Event::Check);
            }
        }
        self.carry_out();
    }

    /// Remembers what happens, for whoever has to understand it, and as one number.
    fn note(&mut self, event: &Event) {
        let nanos = u64::try_from(self.now.as_nanos()).unwrap_or(u64::MAX);
        let kind = match event {
            Event::Due(_) => 1,
            Event::GivesUp(_) => 2,
            Event::Answers(..) => 3,
            Event::Dials(_) => 4,
            Event::Arrives(..) => 5,
            Event::Tick(_) => 6,
            Event::Committed(_) => 7,
            Event::Save(..) => 8,
            Event::Looked(..) => 9,
            Event::Fault(_) => 10,
            Event::Check => 11,
        };
        self.digest = (self.digest ^ nanos ^ (kind << 56)).wrapping_mul(0x0100_0000_01b3);
        let is_dull = matches!(event, Event::Tick(_) | Event::Check);
        if !is_dull {
            self.tell(|| format!("{event:?}"));
        }
    }

    pub(crate) fn tell(&mut self, text: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:9.3} {}", now.as_secs_f64(), text()));
        }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.next_event += 1;
        self.queue.push(Reverse((at, self.next_event)));
        self.events.insert(self.next_event, event);
    }

    pub(crate) fn schedule_fault(&mut self, after: Duration, fault: Fault) {
        self.schedule(self.now + after, Event::Fault(fault));
    }

    fn mono(&self) -> Instant {
        self.base + self.now
    }

    pub(crate) fn moment(&self) -> Moment {
        let since = TimeDelta::from_std(self.now).expect("a run is short");
        let begin = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        let wall = begin + since + self.wall_offset;
        self.disk.set_wall(wall);
        Moment {
            mono: self.mono(),
            wall,
        }
    }

    fn check(&mut self) {
        self.watch_tunnels();
        self.carry_out();
        let moment = self.moment();
        if let Some(coordinator) = &self.coordinator
            && self.coordinator_paused_until + AFTER_PAUSE <= self.now
        {
            let agents = coordinator.table.snapshot(moment);
            let online = coordinator.table.counts().online;
            self.checker.look(&agents, online, self.now);
        }
    }

    fn judge_the_end(&mut self) {
        if !self.checker.violations.is_empty() {
            return;
        }
        let moment = self.moment();
        let Some(coordinator) = &self.coordinator else {
            return;
        };
        let mut found = Vec::new();
        let mut living: Vec<AgentId> = Vec::new();
        for machine in &self.machines {
            let id = machine.identity.id;
            let agent = coordinator.table.get(id, moment);
            match (&machine.process, agent) {
                (Some(process), Some(agent)) => {
                    let is_whole = agent.status == AgentStatus::Online
                        && agent.reason.is_none()
                        && agent.stored.session == Some(process.ledger.session())
                        && Some(agent.stored.epoch) == process.ledger.epoch()
                        && agent.stored.runtime.models == machine.runtime.models
                        && agent.stored.ip_address == IpAddr::from(machine.ip);
                    if !is_whole || living.contains(&id) {
                        let detail = format!(
                            "machine {} is {:?} ({:?}) as {id}, session {:?} epoch {} models {:?} at {}; \
                             it is {:?} epoch {:?}",
                            machine.number,
                            agent.status,
                            agent.reason,
                            agent.stored.session,
                            agent.stored.epoch,
                            agent.stored.runtime.models.first().map(|m| &m.name),
                            agent.stored.ip_address,
                            process.session,
                            process.ledger.epoch(),
                        );
                        found.push((Rule::LivingComeBack, detail));
                    }
                    living.push(id);
                }
                (Some(process), None) => {
                    let detail = format!(
                        "machine {} is not there: {:?}",
                        machine.number, process.session
                    );
                    found.push((Rule::LivingComeBack, detail));
                }
                (None, Some(_) | None) => {}
            }
        }
        for agent in coordinator.table.snapshot(moment) {
            if agent.status == AgentStatus::Online && !living.contains(&agent.id()) {
                found.push((
                    Rule::DeadAreOffline,
                    format!("{} is online and dead", agent.id()),
                ));
            }
        }
        for (rule, detail) in found {
            self.checker.report(rule, detail);
        }
    }
}
