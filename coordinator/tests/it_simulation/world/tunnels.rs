//! Tunnels, seen from both of their ends.

use std::time::Duration;

use ollama_agent::session::state::{Event as SessionEvent, Failure};
use ollama_coordinator::registry::agent::TunnelId;
use rand::Rng as _;

use super::{Event, World};
use crate::machine::Tunnel;
use crate::message::{Exchange, ProcessId, Reply, Request};

const TUNNEL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a process whose lease has run out looks whether it is renewed.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long a dead connection that carries a tunnel goes unnoticed.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

impl World {
    pub(super) fn is_dialling(&self, exchange: Exchange) -> bool {
        let process = self.machines[exchange.from.machine].process.as_ref();
        process.is_some_and(|process| {
            process.id == exchange.from && process.tunnel == Tunnel::Dialling(exchange.number)
        })
    }

    /// Has the next dial open a new tunnel, as each registration does.
    pub(super) fn forget_tunnel(&mut self, index: usize) {
        if let Some(process) = &mut self.machines[index].process {
            process.tunnel = Tunnel::None;
        }
    }

    pub(super) fn dial_tunnel(&mut self, id: ProcessId) {
        let index = id.machine;
        if self.is_put_off(index, || Event::Dials(id)) {
            return;
        }
        let machine = &self.machines[index];
        let (who, is_whole) = (machine.credentials(), machine.network.is_whole());
        let number = self.next_event + (1 << 40);
        let (is_there, now) = (self.coordinator.is_some(), self.mono());
        let process = self.machines[index].process.as_mut();
        let Some(process) = process.filter(|process| process.id == id) else {
            return;
        };
        if !process.is_registered() || process.tunnel != Tunnel::None {
            return;
        }
        if !process.has_lease(now) {
            self.schedule(self.now + LOOK_AGAIN, Event::Dials(id));
            return;
        }
        process.tunnel = Tunnel::Dialling(number);
        let session = process.ledger.session();
        let exchange = Exchange { from: id, number };
        self.schedule(self.now + TUNNEL_TIMEOUT, Event::GivesUp(exchange));
        if is_whole && is_there {
            let at = self.now + self.delay(index);
            self.schedule(at, Event::Arrives(exchange, Request::Tunnel(who, session)));
        }
    }

    pub(super) fn tunnel_answered(&mut self, index: usize, reply: Reply) {
        match reply {
            Reply::TunnelOpen(tunnel) => {
                if let Some(process) = &mut self.machines[index].process {
                    process.tunnel = Tunnel::Open(tunnel);
                }
            }
            Reply::Granted(_) | Reply::Renewed(_) | Reply::Left => {}
            Reply::Failed(failure) => {
                let is_refusal =
                    matches!(failure, Failure::UnknownAgent | Failure::DuplicateIdentity);
                self.tunnel_refused(index, is_refusal);
            }
        }
    }

    pub(super) fn tunnel_refused(&mut self, index: usize, is_refusal: bool) {
        let again = Duration::from_millis(self.rng.random_range(250..5_000));
        let Some(process) = &mut self.machines[index].process else {
            return;
        };
        process.tunnel = Tunnel::None;
        let id = process.id;
        self.schedule(self.now + again, Event::Dials(id));
        if is_refusal {
            self.interrupt(index, SessionEvent::News);
        }
    }

    /// Has both ends of tunnels find out what became of the other one.
    pub(super) fn watch_tunnels(&mut self) {
        let moment = self.moment();
        let Some(coordinator) = &self.coordinator else {
            for index in 0..self.machines.len() {
                self.drop_tunnel_unless(index, |_| false);
            }
            return;
        };
        let open: Vec<_> = coordinator
            .tunnels
            .iter()
            .map(|(id, (_, p))| (*id, *p))
            .collect();
        for (tunnel, process) in open {
            if self.is_tunnel_over(tunnel, process)
                && let Some(coordinator) = &mut self.coordinator
            {
                coordinator.close_tunnel(tunnel, moment);
                self.silent_tunnels.remove(&tunnel);
            }
        }
        let coordinator = self.coordinator.as_ref();
        let open: Vec<TunnelId> = coordinator
            .into_iter()
            .flat_map(|c| c.tunnels.keys().copied())
            .collect();
        for index in 0..self.machines.len() {
            self.drop_tunnel_unless(index, |tunnel| open.contains(&tunnel));
        }
    }

    pub(super) fn is_tunnel_over(&mut self, tunnel: TunnelId, process: ProcessId) -> bool {
        let machine = &self.machines[process.machine];
        let runs = machine.process.as_ref().filter(|other| other.id == process);
        let holds = runs.is_some_and(|process| process.tunnel == Tunnel::Open(tunnel));
        let is_dialling = runs.is_some_and(|p| matches!(p.tunnel, Tunnel::Dialling(_)));
        let answers =
            machine.is_on && machine.network.is_whole() && machine.paused_until <= self.now;
        if answers && (holds || is_dialling) {
            self.silent_tunnels.remove(&tunnel);
            return false;
        }
        let is_told = machine.is_on && machine.network.is_whole() && !holds && !is_dialling;
        let since = *self.silent_tunnels.entry(tunnel).or_insert(self.now);
        is_told || self.now.saturating_sub(since) >= PING_TIMEOUT
    }

    pub(super) fn drop_tunnel_unless(&mut self, index: usize, is_open: impl Fn(TunnelId) -> bool) {
        let machine = &mut self.machines[index];
        let notices = machine.network.blocked_from == 0 && machine.paused_until <= self.now;
        let Some(process) = machine.process.as_mut().filter(|_| notices) else {
            return;
        };
        if let Tunnel::Open(tunnel) = process.tunnel
            && !is_open(tunnel)
        {
            self.tunnel_refused(index, false);
        }
    }
}
