//! The agents' side: what their rules decide and what reaches them.

use std::time::Duration;

use ollama_agent::session::machine::step;
use ollama_agent::session::state::{Action, Connection, Event as SessionEvent, Failure, Session};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use rand::Rng as _;
use tokio::time::Instant;

use super::{Event, Sabotage, World};
use crate::checker::Rule;
use crate::machine::{Process, WaitsFor};
use crate::message::{Exchange, Reply, Request};

const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

impl World {
    pub(crate) fn start_process(&mut self, index: usize) {
        let (seed, now) = (self.rng.random(), self.mono());
        let machine = &mut self.machines[index];
        if machine.process.is_some() || !machine.is_on {
            return;
        }
        machine.start(seed, now);
        self.feed(index, SessionEvent::Due);
    }

    /// Returns whether what happens concerns a process that runs, and what it waits for.
    pub(super) fn is_current(&self, exchange: Exchange) -> bool {
        let process = self.machines[exchange.from.machine].process.as_ref();
        process.is_some_and(|process| process.exchange() == exchange)
    }

    /// Puts an event off while the process is paused; returns whether it was.
    pub(super) fn is_put_off(&mut self, machine: usize, event: impl FnOnce() -> Event) -> bool {
        let until = self.machines[machine].paused_until;
        let is_paused = until > self.now;
        if is_paused {
            self.schedule(until, event());
        }
        is_paused
    }

    pub(super) fn feed_if_current(&mut self, exchange: Exchange, event: SessionEvent) {
        if self.is_current(exchange)
            && !self.is_put_off(exchange.from.machine, || Event::Due(exchange))
        {
            self.feed(exchange.from.machine, event);
        }
    }

    pub(super) fn give_up(&mut self, exchange: Exchange) {
        let index = exchange.from.machine;
        if self.is_dialling(exchange) {
            self.tunnel_refused(index, false);
        } else if self.is_current(exchange) && !self.is_put_off(index, || Event::GivesUp(exchange))
        {
            if let Some(process) = &mut self.machines[index].process {
                process.is_connected = false;
            }
            let is_leaving = self.session_of(index) == Some(Session::Leaving);
            let event = if is_leaving {
                SessionEvent::Left
            } else {
                SessionEvent::Failed(Failure::Unreachable)
            };
            self.feed(index, event);
        }
    }

    pub(super) fn session_of(&self, index: usize) -> Option<Session> {
        self.machines[index]
            .process
            .as_ref()
            .map(|process| process.session)
    }

    pub(super) fn take_answer(&mut self, exchange: Exchange, reply: Reply) {
        let index = exchange.from.machine;
        if self.is_dialling(exchange) {
            self.tunnel_answered(index, reply);
            return;
        }
        if !self.is_current(exchange) || self.is_put_off(index, || Event::Answers(exchange, reply))
        {
            return;
        }
        let Some(process) = &mut self.machines[index].process else {
            return;
        };
        if process.waits_for != WaitsFor::Answer {
            return;
        }
        let told = process.told.take();
        let event = match reply {
            Reply::Granted(terms) => {
                process.ledger.granted(terms.epoch, terms.instance, told);
                process.registered_ip = process.told_ip;
                SessionEvent::Granted(terms.lease)
            }
            Reply::Renewed(terms) => SessionEvent::Renewed {
                terms: terms.lease,
                coordinator: process.ledger.renewed(terms.epoch, terms.instance, told),
            },
            Reply::Left | Reply::TunnelOpen(_) => SessionEvent::Left,
            Reply::Failed(_) if process.session == Session::Leaving => SessionEvent::Left,
            Reply::Failed(failure) => {
                if failure == Failure::Refused {
                    self.checker.report(
                        Rule::SecretsAreKnown,
                        format!("machine {index} was refused"),
                    );
                }
                SessionEvent::Failed(failure)
            }
        };
        self.feed(index, event);
    }

    /// Does what the rules of a process's session decide, until it waits.
    pub(crate) fn feed(&mut self, index: usize, mut event: SessionEvent) {
        loop {
            let now = self.mono();
            let Some(process) = &mut self.machines[index].process else {
                return;
            };
            let is_granted = matches!(event, SessionEvent::Granted(_));
            let (session, action) =
                step(process.session, event, now, &self.rules, &mut process.rng);
            process.session = session;
            process.number += 1;
            process.waits_for = WaitsFor::Answer;
            let (exchange, id) = (process.exchange(), process.id);
            if is_granted && self.machines[index].link == LinkKind::Tunnel {
                self.forget_tunnel(index);
                let at = self.now + Duration::from_millis(self.rng.random_range(1..100));
                self.schedule(at, Event::Dials(id));
            }
            self.tell(|| format!("  machine {index}: {event:?} -> {action:?}"));
            event = match action {
                Action::WaitUntil(at) => match self.wait(index, exchange, at) {
                    Some(event) => event,
                    None => return,
                },
                Action::Register(connection) => return self.register(index, connection),
                Action::Heartbeat {
                    connection,
                    timeout,
                } => match self.beat(index, connection, timeout) {
                    Some(event) => event,
                    None => return,
                },
                Action::ReplaceIdentity => {
                    self.checker
                        .identity_given_up(self.machines[index].identity.id);
                    self.machines[index].replace_identity();
                    SessionEvent::IdentityReplaced
                }
                Action::Deregister => {
                    let machine = &self.machines[index];
                    let session = machine
                        .process
                        .as_ref()
                        .map(|process| process.ledger.session());
                    let who = machine.credentials();
                    let session = session.expect("it runs");
                    return self.send(index, Request::Goodbye(who, session), GOODBYE_TIMEOUT);
                }
                Action::Exit(_) => {
                    self.machines[index].process = None;
                    return;
                }
            };
        }
    }

    pub(super) fn wait(
        &mut self,
        index: usize,
        exchange: Exchange,
        at: Instant,
    ) -> Option<SessionEvent> {
        let runtime = self.machines[index].runtime.clone();
        let process = self.machines[index].process.as_mut()?;
        process.waits_for = WaitsFor::Time;
        if process.tells_news() && process.ledger.is_urgent(&runtime) {
            return Some(SessionEvent::News);
        }
        let has_failed = matches!(process.session, Session::Registered(r) if r.failures > 0);
        if !(self.sabotage == Sabotage::FaintHearts && has_failed) {
            let at = at.saturating_duration_since(self.base).max(self.now);
            self.schedule(at, Event::Due(exchange));
        }
        None
    }

    pub(super) fn register(&mut self, index: usize, connection: Connection) {
        let machine = &mut self.machines[index];
        let Some(mut process) = machine.process.take() else {
            return;
        };
        process.told = Some(machine.runtime.clone());
        process.told_ip = Some(machine.ip);
        process.is_connected &= connection == Connection::Kept;
        let request = machine.registration(&process);
        machine.process = Some(process);
        self.send(index, request, REGISTER_TIMEOUT);
    }

    pub(super) fn beat(
        &mut self,
        index: usize,
        connection: Connection,
        timeout: Duration,
    ) -> Option<SessionEvent> {
        let machine = &mut self.machines[index];
        let (runtime, who, ip) = (machine.runtime.clone(), machine.credentials(), machine.ip);
        let process = machine.process.as_mut()?;
        if process.registered_ip != Some(ip) {
            return Some(SessionEvent::AddressChanged);
        }
        process.is_connected &= connection == Connection::Kept;
        let beat = process.ledger.heartbeat(Some(runtime));
        process.told.clone_from(&beat.runtime);
        self.send(index, Request::Heartbeat(who, Box::new(beat)), timeout);
        None
    }

    /// Tells a process that waits that its machine slept.
    pub(crate) fn wake(&mut self, index: usize) {
        let machine = &self.machines[index];
        let waits = machine
            .process
            .as_ref()
            .is_some_and(|p| p.waits_for == WaitsFor::Time);
        if waits && machine.paused_until <= self.now {
            self.feed(index, SessionEvent::Woke);
        }
    }

    /// Tells a process that waits what cannot wait.
    pub(crate) fn interrupt(&mut self, index: usize, event: SessionEvent) {
        let is_paused = self.machines[index].paused_until > self.now;
        let process = self.machines[index].process.as_ref();
        if !is_paused && process.is_some_and(Process::tells_news) {
            self.feed(index, event);
        }
    }
}
