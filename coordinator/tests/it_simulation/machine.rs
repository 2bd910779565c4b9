//! A machine with its runtime and the agent's process: the real session rules and ledger.

use std::net::Ipv4Addr;
use std::time::Duration;

use ollama_agent::session::ledger::Ledger;
use ollama_agent::session::machine::Rules;
use ollama_agent::session::state::{Joining, LeaseHeld, Session};
use ollama_coordinator::registry::agent::TunnelId;
use ollama_coordinator::registry::registration::NewAgent;
use ollama_coordinator_common::backoff::Backoff;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::secret::{AgentSecret, SecretHash};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use crate::message::{Credentials, Exchange, ProcessId, Request};

pub(crate) const RUNTIME_PORT: u16 = 11434;

pub(crate) struct Machine {
    pub(crate) number: usize,
    pub(crate) link: LinkKind,
    pub(crate) identity: Identity,
    pub(crate) ip: Ipv4Addr,
    pub(crate) network: Network,
    pub(crate) is_on: bool,
    pub(crate) runtime: RuntimeReport,
    pub(crate) runtime_answers: bool,
    pub(crate) paused_until: Duration,
    pub(crate) process: Option<Process>,
    pub(crate) runs: u32,
    /// How many identities it has made.
    pub(crate) identities: usize,
    /// When a fault of its own was last begun or ended.
    pub(crate) disturbed: Duration,
    /// Whether it is meant to live when the faults are over.
    pub(crate) stays: bool,
}

/// What its disk remembers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) id: AgentId,
    pub(crate) secret: SecretHash,
    pub(crate) cloned_from: Option<AgentId>,
}

/// What becomes of packets. Blocks are counted, because faults overlap.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) blocked_to: u32,
    pub(crate) blocked_from: u32,
    /// The probability that a packet is lost and sent again.
    pub(crate) loss: f64,
    /// The probability that a request is sent twice.
    pub(crate) repeats: f64,
    pub(crate) slow: Duration,
}

impl Network {
    pub(crate) fn is_whole(&self) -> bool {
        self.blocked_to == 0 && self.blocked_from == 0
    }
}

/// The agent's process.
pub(crate) struct Process {
    pub(crate) id: ProcessId,
    pub(crate) session: Session,
    pub(crate) ledger: Ledger,
    pub(crate) rng: SmallRng,
    /// Counts what was begun, so that what comes late is known as late.
    pub(crate) number: u64,
    pub(crate) waits_for: WaitsFor,
    pub(crate) is_connected: bool,
    /// The address that the registration on its way names.
    pub(crate) told_ip: Option<Ipv4Addr>,
    /// The address that was registered.
    pub(crate) registered_ip: Option<Ipv4Addr>,
    /// The report that went with the message on its way.
    pub(crate) told: Option<RuntimeReport>,
    pub(crate) tunnel: Tunnel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Time,
    Answer,
}

/// The process's end of its tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tunnel {
    None,
    Dialling(u64),
    Open(TunnelId),
}

impl Machine {
    pub(crate) fn new(number: usize, link: LinkKind) -> Self {
        let mut machine = Self {
            number,
            link,
            identity: Identity::number(number),
            ip: Ipv4Addr::UNSPECIFIED,
            network: Network::default(),
            is_on: true,
            runtime: RuntimeReport::default(),
            runtime_answers: true,
            paused_until: Duration::ZERO,
            process: None,
            runs: 0,
            identities: 0,
            disturbed: Duration::ZERO,
            stays: true,
        };
        machine.move_to(0);
        machine.serve(0);
        machine
    }

    /// Takes another address.
    pub(crate) fn move_to(&mut self, place: u8) {
        let [high, low] = u16::try_from(self.number).unwrap_or(u16::MAX).to_be_bytes();
        self.ip = Ipv4Addr::new(10, place, high, low);
    }

    /// Serves other models.
    pub(crate) fn serve(&mut self, version: u32) {
        self.runtime = RuntimeReport {
            status: RuntimeStatus::Running,
            models: vec![Model::named(format!("model-{version}:latest"))],
            ..RuntimeReport::default()
        };
    }

    /// Starts the agent's process.
    pub(crate) fn start(&mut self, seed: u64, now: Instant) {
        self.runs += 1;
        let id = ProcessId {
            machine: self.number,
            run: self.runs,
        };
        self.process = Some(Process {
            id,
            session: Session::Unregistered(Joining::start(now, LeaseHeld::No)),
            ledger: Ledger::new(session_id(id, 0)),
            rng: SmallRng::seed_from_u64(seed),
            number: 0,
            waits_for: WaitsFor::Time,
            is_connected: false,
            told_ip: None,
            registered_ip: None,
            told: None,
            tunnel: Tunnel::None,
        });
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials {
            id: self.identity.id,
            secret: self.identity.secret,
        }
    }

    /// Returns whether its process runs and can be heard.
    pub(crate) fn is_well(&self, now: Duration) -> bool {
        let network = &self.network;
        let is_slow = network.loss > 0.0 || !network.slow.is_zero();
        self.process.is_some() && network.is_whole() && !is_slow && self.paused_until < now
    }

    /// Returns what the process says to register.
    pub(crate) fn registration(&self, process: &Process) -> Request {
        Request::Register(Box::new(NewAgent {
            id: Some(self.identity.id),
            secret: Some(self.identity.secret),
            session: Some(process.ledger.session()),
            epoch: process.ledger.epoch(),
            cloned_from: self.identity.cloned_from,
            machine_name: format!("machine-{}", self.number),
            ip_address: self.ip.into(),
            port: RUNTIME_PORT,
            link: self.link,
            ollama_version: None,
            runtime: Some(self.runtime.clone()),
            system_info: None,
            paused: None,
            agent_version: None,
        }))
    }

    /// Makes a new identity because another process uses the present one.
    pub(crate) fn replace_identity(&mut self) {
        let old = self.identity.id;
        self.identities += 1;
        self.identity = Identity {
            cloned_from: Some(old),
            ..Identity::number(self.number + self.identities * 1_000_000)
        };
        if let Some(process) = &mut self.process {
            process.number += 1;
            process.ledger = Ledger::new(session_id(process.id, process.number));
        }
    }
}

impl Process {
    pub(crate) fn exchange(&self) -> Exchange {
        Exchange {
            from: self.id,
            number: self.number,
        }
    }

    pub(crate) fn is_registered(&self) -> bool {
        matches!(self.session, Session::Registered(_))
    }

    /// Returns whether the lease runs that it was granted last.
    pub(crate) fn has_lease(&self, now: Instant) -> bool {
        matches!(self.session, Session::Registered(r) if r.renewed_at + r.lease.ttl > now)
    }

    /// Returns whether it waits and would pass on what cannot wait.
    pub(crate) fn tells_news(&self) -> bool {
        let is_well = matches!(self.session, Session::Registered(r) if r.failures == 0);
        is_well && self.waits_for == WaitsFor::Time
    }
}

impl Identity {
    fn number(number: usize) -> Self {
        let secret: AgentSecret = format!("secret-of-identity-{number}")
            .parse()
            .expect("is a secret");
        Self {
            id: AgentId::from_u128(number as u128 + 1),
            secret: secret.hash(),
            cloned_from: None,
        }
    }
}

fn session_id(process: ProcessId, number: u64) -> SessionId {
    let machine = (process.machine as u128) << 96;
    SessionId::from_u128(machine | (u128::from(process.run) << 64) | u128::from(number))
}

/// The agent's rules with its default settings.
pub(crate) fn rules() -> Rules {
    let (first, longest) = (Duration::from_millis(500), Duration::from_secs(30));
    Rules {
        backoff: Backoff::new(first, longest).expect("the bounds are in order"),
        refused_retry: Duration::from_secs(30),
        max_attempts: None,
        longest_interval: None,
    }
}
