//! The coordinator's side: its runs, what reaches it, and what becomes of what it does.

use std::net::IpAddr;
use std::time::Duration;

use ollama_agent::session::state::Failure;
use ollama_coordinator::registry::table::{ReachCheck, Unsaved};
use ollama_coordinator::registry::transition::Transition;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use rand::Rng as _;

use super::{Event, Sabotage, World};
use crate::checker::Rule;
use crate::coordinator::{Coordinator, Effect, TICK};
use crate::machine::{RUNTIME_PORT, WaitsFor};
use crate::message::{Credentials, Exchange, Reply, Request};

/// An agent that nothing has happened to for so long has been heard of.
const WELL: Duration = Duration::from_secs(45);
const SAVE_DELAY: Duration = Duration::from_millis(500);
const SAVE_INTERVAL: Duration = Duration::from_mins(1);
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

impl World {
    pub(crate) fn start_coordinator(&mut self) {
        if self.coordinator.is_some() {
            return;
        }
        self.disk.set_budget(None);
        let (run, moment) = (self.coordinator_runs, self.moment());
        self.coordinator_runs += 1;
        let started = Coordinator::start(run, self.setting.policy, &self.disk, (self.now, moment));
        let (mut coordinator, recovery) = started;
        if recovery.is_suspicious() {
            self.checker
                .report(Rule::AcknowledgedIsKept, recovery.to_string());
        }
        if self.sabotage == Sabotage::ForgetfulRestart
            && let Some(agent) = coordinator.table.snapshot(moment).first()
            && let Some(ticket) = coordinator.table.remove(agent.id(), moment)
        {
            coordinator.table.publish(ticket, moment);
        }
        self.coordinator = Some(coordinator);
        self.coordinator_paused_until = self.now;
        self.saves_soon = false;
        self.silent_tunnels.clear();
        let policy = self.setting.policy;
        let ttl = policy.terms(self.setting.machines * 2, None).ttl;
        self.checker
            .coordinator_started(self.now, policy.restart_grace(), ttl);
        self.check();
        self.schedule(self.now + TICK, Event::Tick(run));
        self.schedule(self.now + SAVE_INTERVAL, Event::Save(run, Unsaved::HeardOf));
    }

    /// Ends the coordinator at once; what it was writing gets so many operations far.
    pub(crate) fn kill_coordinator(&mut self, loses_power: bool) {
        let Some(coordinator) = self.coordinator.take() else {
            return;
        };
        let operations = self.rng.random_range(0..40);
        self.disk.set_budget(Some(operations));
        coordinator.die();
        if loses_power {
            self.disk.lose_power(&mut self.rng);
        }
        self.coordinator_is_gone();
    }

    /// Ends the coordinator as an operator does: it saves and settles everything first.
    pub(crate) fn stop_coordinator(&mut self) {
        let (now, moment) = (self.now, self.moment());
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        coordinator.save(Unsaved::HeardOf, moment);
        for _ in 0..3 {
            coordinator.finish_commit(now, moment);
        }
        self.carry_out();
        self.coordinator = None;
        self.coordinator_is_gone();
    }

    pub(super) fn coordinator_is_gone(&mut self) {
        self.checker.coordinator_died();
        for index in 0..self.machines.len() {
            let machine = &mut self.machines[index];
            let is_told = machine.network.blocked_from == 0;
            let Some(process) = machine.process.as_mut().filter(|_| is_told) else {
                continue;
            };
            process.is_connected = false;
            if process.waits_for == WaitsFor::Answer {
                let exchange = process.exchange();
                let at = self.now + self.delay(index);
                self.schedule(
                    at,
                    Event::Answers(exchange, Reply::Failed(Failure::Unreachable)),
                );
            }
        }
    }

    pub(super) fn with_run(&mut self, run: u32, act: impl FnOnce(&mut Coordinator)) {
        if let Some(coordinator) = self.coordinator.as_mut().filter(|c| c.run == run) {
            act(coordinator);
        }
    }

    /// Returns the event, or puts it off until the coordinator goes on.
    pub(super) fn unless_paused(&mut self, event: Event) -> Option<Event> {
        if self.coordinator_paused_until <= self.now {
            return Some(event);
        }
        let at =
            self.coordinator_paused_until + self.rng.random_range(0..20) * Duration::from_millis(1);
        self.schedule(at, event);
        None
    }

    pub(super) fn tick(&mut self, run: u32) {
        if self.coordinator_paused_until > self.now {
            let at =
                self.coordinator_paused_until + Duration::from_millis(self.rng.random_range(0..20));
            self.schedule(at, Event::Tick(run));
            return;
        }
        let (now, moment) = (self.now, self.moment());
        let is_current = self.coordinator.as_ref().is_some_and(|c| c.run == run);
        if !is_current {
            return;
        }
        let has_reaper = self.sabotage != Sabotage::NoReaper;
        self.with_run(run, |coordinator| {
            if has_reaper {
                coordinator.tick(now, moment);
            } else {
                coordinator.take_looks(moment);
            }
        });
        self.schedule(now + TICK, Event::Tick(run));
    }

    pub(super) fn save(&mut self, run: u32, which: Unsaved) {
        if self.unless_paused(Event::Save(run, which)).is_none() {
            return;
        }
        if which == Unsaved::Changed {
            self.saves_soon = false;
        }
        let moment = self.moment();
        self.with_run(run, |coordinator| coordinator.save(which, moment));
        let is_current = self.coordinator.as_ref().is_some_and(|c| c.run == run);
        if which == Unsaved::HeardOf && is_current {
            self.schedule(self.now + SAVE_INTERVAL, Event::Save(run, which));
        }
    }

    pub(super) fn arrive(&mut self, exchange: Exchange, request: Request) {
        let Some(event) = self.unless_paused(Event::Arrives(exchange, request)) else {
            return;
        };
        let Event::Arrives(exchange, request) = event else {
            return;
        };
        let moment = self.moment();
        let is_deaf = self.sabotage == Sabotage::DeafCoordinator
            && matches!(request, Request::Heartbeat(..))
            && self.now > Duration::from_mins(1);
        if let (true, Request::Heartbeat(who, _)) = (is_deaf, &request) {
            self.checker.heard(who.id, self.now);
            return;
        }
        self.forge(exchange, &request);
        match &mut self.coordinator {
            Some(coordinator) => coordinator.handle(exchange, request, moment),
            None => self.answer(exchange, Reply::Failed(Failure::Unreachable)),
        }
    }

    /// Invents heartbeats of the session before the one that registers, if that is the sabotage.
    pub(super) fn forge(&mut self, exchange: Exchange, request: &Request) {
        let Request::Register(new) = request else {
            return;
        };
        let (Some(id), Some(secret), Some(session)) = (new.id, new.secret, new.session) else {
            return;
        };
        let before = self
            .sessions
            .insert(id, session)
            .filter(|before| *before != session);
        let Some(before) = before.filter(|_| self.sabotage == Sabotage::ForgedHeartbeats) else {
            return;
        };
        for number in 1..=2 {
            let beat = HeartbeatRequest {
                session: Some(before),
                seq: Some(1_000_000 + number),
                ..HeartbeatRequest::default()
            };
            let exchange = Exchange {
                number: u64::MAX,
                ..exchange
            };
            let request = Request::Heartbeat(Credentials { id, secret }, Box::new(beat));
            self.schedule(
                self.now + Duration::from_secs(number),
                Event::Arrives(exchange, request),
            );
        }
    }

    /// Carries out what the coordinator did, and tells the checker.
    pub(super) fn carry_out(&mut self) {
        let Some(coordinator) = &mut self.coordinator else {
            return;
        };
        let run = coordinator.run;
        for effect in coordinator.take_effects() {
            self.tell(|| told(&effect));
            match effect {
                Effect::Answer(exchange, reply) => self.answer(exchange, reply),
                Effect::CommitBegins => {
                    let takes =
                        self.disk_delay + Duration::from_millis(self.rng.random_range(2..30));
                    self.schedule(self.now + takes, Event::Committed(run));
                }
                Effect::SaveSoon if self.saves_soon => {}
                Effect::SaveSoon => {
                    self.saves_soon = true;
                    self.schedule(self.now + SAVE_DELAY, Event::Save(run, Unsaved::Changed));
                }
                Effect::Look(check) => self.look(run, check),
                Effect::Happened(Transition::Expired { agent, .. }) => {
                    self.checker.expired(agent.id(), self.now);
                    self.judge_offline(agent.id());
                }
                Effect::Happened(_) => {}
                Effect::Heard(id) => self.checker.heard(id, self.now),
                Effect::Granted(granted, session) => self.checker.granted(granted, session),
                Effect::Left(id) => self.checker.left(id),
                Effect::Patched(id, note) => self.checker.patched(id, note),
                Effect::Removed(id) => self.checker.removed(id),
                Effect::TunnelClosed(id) => self.checker.tunnel_closed(id, self.now),
                Effect::Paused(grace) => self.checker.coordinator_paused(self.now, grace),
            }
        }
    }

    /// Judges that an agent was taken offline with whom nothing has been wrong for long.
    fn judge_offline(&mut self, id: AgentId) {
        let mut machines = self
            .machines
            .iter()
            .filter(|machine| machine.identity.id == id);
        let (Some(machine), None) = (machines.next(), machines.next()) else {
            return;
        };
        let well_for = self.now.saturating_sub(machine.disturbed);
        if machine.is_well(self.now) && well_for > WELL {
            let detail = format!("{id} was taken offline after {well_for:?} without a fault");
            self.checker.report(Rule::WordsKeepOnline, detail);
        }
    }

    pub(super) fn look(&mut self, run: u32, check: ReachCheck) {
        let target = self.machines.iter().position(|machine| {
            IpAddr::from(machine.ip) == check.endpoint.ip() && check.endpoint.port() == RUNTIME_PORT
        });
        let found = target.is_some_and(|index| {
            let machine = &self.machines[index];
            machine.is_on && machine.runtime_answers && machine.network.is_whole()
        });
        let takes = if found {
            target.map_or(LOOK_TIMEOUT, |index| self.delay(index) + self.delay(index))
        } else {
            LOOK_TIMEOUT
        };
        self.schedule(self.now + takes, Event::Looked(run, check, found));
    }

    pub(super) fn looked(&mut self, run: u32, check: ReachCheck, found: bool) {
        if found {
            self.checker.runtime_answered(check.id, self.now);
        }
        let report = found.then(RuntimeReport::default);
        let moment = self.moment();
        self.with_run(run, |coordinator| {
            coordinator.table.record_reach(check, report, moment);
        });
    }
}

fn transition_name(transition: &Transition) -> String {
    match transition {
        Transition::Joined(agent) => format!("joined {}", agent.id()),
        Transition::Returned(agent) => format!("returned {}", agent.id()),
        Transition::Expired { agent, .. } => format!("expired {}", agent.id()),
        Transition::HeartbeatsMissing { agent, .. } => format!("kept {}", agent.id()),
        Transition::Left(agent) => format!("left {}", agent.id()),
        Transition::RoutabilityChanged(agent) => format!("{:?} {}", agent.reason, agent.id()),
        Transition::Changed(agent) => format!("changed {}", agent.id()),
        Transition::Removed(id) => format!("removed {id}"),
        Transition::EndpointShared { endpoint, .. } => format!("shared {endpoint}"),
        Transition::IsolationSuspected { overdue, online } => {
            format!("isolated {overdue}/{online}")
        }
    }
}

fn told(effect: &Effect) -> String {
    if let Effect::Happened(transition) = effect {
        format!("  {}", transition_name(transition))
    } else {
        format!("  {effect:?}")
    }
}
