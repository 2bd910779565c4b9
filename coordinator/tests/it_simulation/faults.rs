//! What goes wrong, and how it is put right.

use std::time::Duration;

use chrono::TimeDelta;
use ollama_agent::session::state::Event as SessionEvent;
use ollama_coordinator::registry::lease::LeasePolicy;
use rand::Rng as _;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;

use crate::machine::{Machine, Network};
use crate::world::{Setting, World};

/// How long the world is left alone at the end, beside what leases and grace take.
const QUIET: Duration = Duration::from_secs(75);

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Machine(usize, OfMachine),
    Blocked(Vec<usize>, Direction, bool),
    Coordinator(OfCoordinator),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum OfMachine {
    ProcessStarts,
    ProcessIsKilled(Option<Duration>),
    ProcessIsAskedToStop(Option<Duration>),
    ProcessIsPaused(Duration),
    Sleeps(Duration),
    Wakes,
    IsOff(Option<Duration>),
    IsOn,
    Moves(u8),
    DiskIsCopied,
    RuntimeServes(u32),
    RuntimeIsDown(bool),
    Lossy(f64),
    Repeating(f64),
    Slow(Duration),
    OperatorWrites(u64),
    OperatorForgets,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum OfCoordinator {
    Starts,
    IsKilled(Duration, Power),
    IsStopped(Duration),
    IsPaused(Duration),
    DiskIsFull(bool),
    DiskIsSlow(Duration),
    ClockJumps(TimeDelta),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    To,
    From,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Power {
    Stays,
    Lost,
}

impl Setting {
    pub(crate) fn random(rng: &mut SmallRng) -> Self {
        let sizes = [
            1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 6, 8, 10, 10, 12, 15, 20, 25, 40, 80, 300,
        ];
        let machines = *sizes.choose(rng).expect("there are some");
        let seconds = *[1, 1, 1, 1, 2, 5].choose(rng).expect("there are some");
        let fixed = [None, None, None, Some(6), Some(30)]
            .choose(rng)
            .copied()
            .flatten();
        let policy = LeasePolicy {
            interval: Duration::from_secs(seconds),
            fixed_ttl: fixed.map(Duration::from_secs),
        };
        let ttl = policy.terms(machines * 2, None).ttl;
        let faults_end = Duration::from_secs(rng.random_range(20..150));
        Self {
            machines,
            policy,
            faults_end,
            end: faults_end + QUIET + policy.restart_grace() + ttl * 8,
        }
    }
}

impl Fault {
    /// Draws what goes wrong in one run, and when.
    pub(crate) fn plan(setting: &Setting, rng: &mut SmallRng) -> Vec<(Duration, Self)> {
        let mut plan = Vec::new();
        let end = setting.faults_end;
        let among_machines = setting.machines * rng.random_range(0..200) / 100;
        for _ in 0..among_machines {
            let machine = rng.random_range(0..setting.machines);
            let at = rng.random_range(Duration::ZERO..end);
            plan.extend(of_machine(machine, at, rng));
        }
        for _ in 0..rng.random_range(0..10) {
            let at = rng.random_range(Duration::ZERO..end);
            plan.extend(of_all(setting.machines, at, rng));
        }
        plan
    }

    /// Returns whether this puts something right, so that it happens even when faults are over.
    fn mends(&self) -> bool {
        use OfMachine::{IsOn, ProcessStarts, RuntimeIsDown, Wakes};
        match self {
            Self::Machine(_, ProcessStarts | IsOn | Wakes | RuntimeIsDown(false))
            | Self::Coordinator(OfCoordinator::Starts | OfCoordinator::DiskIsFull(false)) => true,
            Self::Machine(..) | Self::Blocked(..) | Self::Coordinator(_) => false,
        }
    }
}

type Planned = Vec<(Duration, Fault)>;

fn of_machine(machine: usize, at: Duration, rng: &mut SmallRng) -> Planned {
    let lasts = some_time(rng);
    let once = |fault| vec![(at, Fault::Machine(machine, fault))];
    let during = |begins, ends| {
        let faults = [(at, begins), (at + lasts, ends)];
        faults
            .map(|(at, fault)| (at, Fault::Machine(machine, fault)))
            .to_vec()
    };
    match rng.random_range(0..16) {
        0 | 1 => once(OfMachine::ProcessIsKilled(maybe(lasts, rng))),
        2 => once(OfMachine::ProcessIsAskedToStop(maybe(lasts, rng))),
        3 | 4 => once(OfMachine::ProcessIsPaused(lasts)),
        5 => once(OfMachine::Sleeps(lasts)),
        6 => once(OfMachine::IsOff(maybe(lasts, rng))),
        7 => once(OfMachine::Moves(rng.random_range(1..250))),
        8 => once(OfMachine::DiskIsCopied),
        9 => once(OfMachine::RuntimeServes(rng.random_range(1..1_000))),
        10 => during(
            OfMachine::RuntimeIsDown(true),
            OfMachine::RuntimeIsDown(false),
        ),
        11 | 12 => blocked(vec![machine], (at, lasts), rng),
        13 => during(
            OfMachine::Lossy(rng.random_range(0.05..0.6)),
            OfMachine::Lossy(0.0),
        ),
        14 => during(OfMachine::Repeating(0.5), OfMachine::Repeating(0.0)),
        _ => {
            let slow = rng.random_range(Duration::ZERO..Duration::from_secs(4));
            during(OfMachine::Slow(slow), OfMachine::Slow(Duration::ZERO))
        }
    }
}

fn of_all(machines: usize, at: Duration, rng: &mut SmallRng) -> Planned {
    let lasts = some_time(rng);
    let machine = rng.random_range(0..machines);
    let once = |fault| vec![(at, Fault::Coordinator(fault))];
    let during = |begins, ends| {
        let faults = [(at, begins), (at + lasts, ends)];
        faults
            .map(|(at, fault)| (at, Fault::Coordinator(fault)))
            .to_vec()
    };
    match rng.random_range(0..12) {
        0 | 1 => once(OfCoordinator::IsKilled(lasts, Power::Stays)),
        2 | 3 => once(OfCoordinator::IsKilled(lasts, Power::Lost)),
        4 => once(OfCoordinator::IsStopped(lasts)),
        5 => once(OfCoordinator::IsPaused(lasts)),
        6 => during(
            OfCoordinator::DiskIsFull(true),
            OfCoordinator::DiskIsFull(false),
        ),
        7 => {
            let slow = rng.random_range(Duration::ZERO..Duration::from_secs(3));
            during(
                OfCoordinator::DiskIsSlow(slow),
                OfCoordinator::DiskIsSlow(Duration::ZERO),
            )
        }
        8 => once(OfCoordinator::ClockJumps(TimeDelta::seconds(
            rng.random_range(-90_000..90_000),
        ))),
        9 => {
            let share = rng.random_range(0.0..1.0);
            let cut = (0..machines).filter(|_| rng.random_bool(share)).collect();
            blocked(cut, (at, lasts), rng)
        }
        10 => vec![(at, Fault::Machine(machine, OfMachine::OperatorForgets))],
        _ => {
            // Later notes are greater ones, so that it can be told which was the last.
            let note = at.as_secs() * 1_000 + u64::from(at.subsec_millis());
            vec![(at, Fault::Machine(machine, OfMachine::OperatorWrites(note)))]
        }
    }
}

fn blocked(machines: Vec<usize>, (at, lasts): (Duration, Duration), rng: &mut SmallRng) -> Planned {
    let ways = [Direction::To, Direction::From, Direction::Both];
    let way = *ways.choose(rng).expect("there are some");
    vec![
        (at, Fault::Blocked(machines.clone(), way, true)),
        (at + lasts, Fault::Blocked(machines, way, false)),
    ]
}

/// Returns mostly short times, and long ones now and then.
fn some_time(rng: &mut SmallRng) -> Duration {
    let longest = *[1.0, 5.0, 20.0, 90.0].choose(rng).expect("there are some");
    Duration::from_secs_f64(rng.random_range(0.05..longest))
}

fn maybe(lasts: Duration, rng: &mut SmallRng) -> Option<Duration> {
    rng.random_bool(0.8).then_some(lasts)
}

impl World {
    pub(crate) fn apply(&mut self, fault: Fault) {
        let is_over = self.now > self.setting.faults_end;
        if is_over && !fault.mends() {
            return;
        }
        match fault {
            Fault::Machine(machine, fault) => {
                self.machines[machine].disturbed = self.now;
                self.apply_to_machine(machine, fault);
            }
            Fault::Blocked(machines, way, begins) => self.block(&machines, way, begins),
            Fault::Coordinator(fault) => self.apply_to_coordinator(fault),
        }
    }

    fn apply_to_machine(&mut self, index: usize, fault: OfMachine) {
        match fault {
            OfMachine::ProcessStarts => self.start_process(index),
            OfMachine::ProcessIsKilled(back) => {
                self.machines[index].process = None;
                self.comes_back(index, back, OfMachine::ProcessStarts);
            }
            OfMachine::ProcessIsAskedToStop(back) => {
                if self.machines[index].process.is_some() {
                    self.feed(index, SessionEvent::StopRequested);
                }
                self.comes_back(index, back, OfMachine::ProcessStarts);
            }
            OfMachine::ProcessIsPaused(lasts) => drop(self.pause(index, lasts)),
            OfMachine::Sleeps(lasts) => {
                let rest = self.pause(index, lasts);
                self.schedule_fault(rest, Fault::Machine(index, OfMachine::Wakes));
            }
            OfMachine::Wakes => self.wake(index),
            OfMachine::IsOff(back) => {
                self.machines[index].process = None;
                self.machines[index].is_on = false;
                self.comes_back(index, back, OfMachine::IsOn);
            }
            OfMachine::IsOn => {
                self.machines[index].is_on = true;
                self.start_process(index);
            }
            OfMachine::Moves(place) => {
                self.machines[index].move_to(place);
                if let Some(process) = &mut self.machines[index].process {
                    process.is_connected = false;
                }
            }
            OfMachine::DiskIsCopied => self.copy_disk(index),
            OfMachine::RuntimeServes(version) => self.serve(index, version),
            OfMachine::RuntimeIsDown(is_down) => self.machines[index].runtime_answers = !is_down,
            OfMachine::Lossy(loss) => self.machines[index].network.loss = loss,
            OfMachine::Repeating(repeats) => self.machines[index].network.repeats = repeats,
            OfMachine::Slow(slow) => self.machines[index].network.slow = slow,
            OfMachine::OperatorWrites(_) | OfMachine::OperatorForgets => self.operate(index, fault),
        }
    }

    fn operate(&mut self, index: usize, fault: OfMachine) {
        let (id, moment) = (self.machines[index].identity.id, self.moment());
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        if let OfMachine::OperatorWrites(note) = fault {
            coordinator.patch(id, note, moment);
        } else {
            self.checker.removal_wanted(id);
            coordinator.remove(id, moment);
        }
    }

    fn serve(&mut self, index: usize, version: u32) {
        let machine = &mut self.machines[index];
        machine.serve(version);
        let process = machine.process.as_ref();
        if process.is_some_and(|process| process.ledger.is_urgent(&machine.runtime)) {
            self.interrupt(index, SessionEvent::News);
        }
    }

    fn apply_to_coordinator(&mut self, fault: OfCoordinator) {
        match fault {
            OfCoordinator::Starts => self.start_coordinator(),
            OfCoordinator::IsKilled(lasts, power) => {
                self.kill_coordinator(power == Power::Lost);
                self.schedule_fault(lasts, Fault::Coordinator(OfCoordinator::Starts));
            }
            OfCoordinator::IsStopped(lasts) => {
                self.stop_coordinator();
                self.schedule_fault(lasts, Fault::Coordinator(OfCoordinator::Starts));
            }
            OfCoordinator::IsPaused(lasts) => {
                let until = (self.now + lasts).min(self.setting.faults_end);
                self.coordinator_paused_until = self.coordinator_paused_until.max(until);
            }
            OfCoordinator::DiskIsFull(is_full) => self.disk.set_full(is_full),
            OfCoordinator::DiskIsSlow(delay) => self.disk_delay = delay,
            OfCoordinator::ClockJumps(by) => self.wall_offset += by,
        }
    }

    /// Pauses a process, or prolongs its pause, and returns how long it is paused from now on.
    fn pause(&mut self, index: usize, lasts: Duration) -> Duration {
        let until = (self.now + lasts).min(self.setting.faults_end);
        let machine = &mut self.machines[index];
        machine.paused_until = machine.paused_until.max(until);
        machine.disturbed = machine.paused_until;
        machine.paused_until.saturating_sub(self.now)
    }

    fn comes_back(&mut self, machine: usize, back: Option<Duration>, how: OfMachine) {
        match back {
            Some(after) => self.schedule_fault(after, Fault::Machine(machine, how)),
            None => self.machines[machine].stays = false,
        }
    }

    /// Starts a second machine with what is on the disk of the first.
    fn copy_disk(&mut self, machine: usize) {
        let identity = self.machines[machine].identity;
        self.checker.identity_shared(identity.id);
        let number = self.machines.len();
        let link = self.machines[machine].link;
        let copy = Machine {
            identity,
            ..Machine::new(number, link)
        };
        self.machines.push(copy);
        self.start_process(number);
    }

    fn block(&mut self, machines: &[usize], way: Direction, begins: bool) {
        let (to, from) = (way != Direction::From, way != Direction::To);
        let count = |count: &mut u32, concerns: bool| match (concerns, begins) {
            (true, true) => *count += 1,
            (true, false) => *count = count.saturating_sub(1),
            (false, _) => {}
        };
        for index in machines {
            let machine = &mut self.machines[*index];
            machine.disturbed = self.now;
            count(&mut machine.network.blocked_to, to);
            count(&mut machine.network.blocked_from, from);
        }
    }

    /// Puts everything right, but for those who are dead for good.
    pub(crate) fn heal(&mut self) {
        self.tell(|| "everything is put right".to_owned());
        self.disk.set_full(false);
        self.disk_delay = Duration::ZERO;
        self.start_coordinator();
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            machine.network = Network::default();
            machine.disturbed = self.now;
            machine.runtime_answers = true;
            if machine.stays {
                machine.is_on = true;
                self.start_process(index);
            }
        }
    }
}
