//! One agent in memory: its durable record, its lease, and what makes it routable.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::pause::Paused;
use ollama_coordinator_common::protocol::runtime::{RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentWarning, UnroutableReason};
use tokio::time::Instant;

use super::lease::{Lease, Trust};
use super::routing::RoutingFacts;
use super::snapshot::{AgentSnapshot, model_key};
use crate::storage::agent::{StoredAgent, StoredPause};

/// A moment on both clocks: the monotonic one decides, the other is only shown.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// For every decision.
    pub mono: Instant,
    /// For display and for the file.
    pub wall: DateTime<Utc>,
}

impl Moment {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self {
            mono: Instant::now(),
            wall: Utc::now(),
        }
    }
}

/// What the coordinator found when it dialled the agent's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Not tried since the address became known.
    Unverified,
    /// A runtime answered there.
    Reachable,
    /// Nothing answered there.
    Unreachable,
}

/// Two processes that claim one id: the session before the current one, still heard of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contest {
    pub(super) earlier: SessionId,
    pub(super) since: Instant,
    pub(super) heartbeats_of_earlier: u8,
}

/// The connection that an agent has dialled to carry requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) id: TunnelId,
    /// The process at its other end.
    pub(super) session: SessionId,
}

/// An agent as the registry knows it.
#[derive(Debug)]
pub(super) struct AgentRecord {
    pub(super) stored: Arc<StoredAgent>,
    /// `None`: offline.
    pub(super) lease: Option<Lease>,
    /// Where this agent stands in the ordered set of deadlines.
    pub(super) scheduled: Option<Instant>,
    pub(super) last_seen: Option<Instant>,
    pub(super) seq: u64,
    pub(super) contest: Option<Contest>,
    pub(super) refused_session: Option<SessionId>,
    pub(super) leaving: bool,
    pub(super) metrics: Option<Arc<Metrics>>,
    pub(super) tunnel: Option<Tunnel>,
    /// Since when it is expected back: its tunnel is lost or not there yet, or it has just left.
    pub(super) awaited_since: Option<Instant>,
    pub(super) reach: Reach,
    pub(super) reach_failures: u32,
    pub(super) next_reach_check: Option<Instant>,
    pub(super) in_flight: Arc<AtomicU32>,
    /// The balancer gives it no requests for a while, because it failed.
    pub(super) is_ejected: bool,
    /// How often it has registered.
    pub(super) registrations: u64,
    /// Something worth saving has changed since the last commit of this agent.
    pub(super) unsaved: bool,
}

impl AgentRecord {
    pub(super) fn new(stored: Arc<StoredAgent>) -> Self {
        Self {
            stored,
            lease: None,
            scheduled: None,
            last_seen: None,
            seq: 0,
            contest: None,
            refused_session: None,
            leaving: false,
            metrics: None,
            tunnel: None,
            awaited_since: None,
            reach: Reach::Unverified,
            reach_failures: 0,
            next_reach_check: None,
            in_flight: Arc::new(AtomicU32::new(0)),
            is_ejected: false,
            registrations: 0,
            unsaved: false,
        }
    }

    /// Returns whether it has the model with this key.
    pub(super) fn has_model(&self, key: &str) -> bool {
        let mut models = self.stored.runtime.models.iter();
        models.any(|known| model_key(&known.name) == key)
    }

    pub(super) fn status(&self) -> AgentStatus {
        if self.lease.is_some() {
            AgentStatus::Online
        } else {
            AgentStatus::Offline
        }
    }

    /// Returns how far the agent is trusted; `None`: it is offline.
    pub(super) fn trust(&self) -> Option<Trust> {
        self.lease.map(|lease| lease.trust())
    }

    /// Returns what is unusual about it, though it works.
    pub(super) fn warning(&self) -> Option<AgentWarning> {
        (self.trust() == Some(Trust::Kept)).then_some(AgentWarning::HeartbeatsMissing)
    }

    /// Returns why the agent may not get requests; `None` when it may.
    pub(super) fn unroutable(&self) -> Option<UnroutableReason> {
        let ejected = self.is_ejected.then_some(UnroutableReason::Ejected);
        self.unroutable_but_for_ejection().or(ejected)
    }

    /// Leaves out what the balancer decides itself.
    pub(super) fn unroutable_but_for_ejection(&self) -> Option<UnroutableReason> {
        if self.lease.is_none() {
            return Some(UnroutableReason::Offline);
        }
        if self.is_draining() {
            return Some(UnroutableReason::Draining);
        }
        if self.stored.paused.is_some() {
            return Some(UnroutableReason::Paused);
        }
        if self.stored.runtime.status == RuntimeStatus::NotAnswering {
            return Some(UnroutableReason::RuntimeNotAnswering);
        }
        match (self.link(), self.reach) {
            (Link::Tunnel(Some(_)), _) | (Link::Direct(_), Reach::Reachable) => None,
            (Link::Tunnel(None), _) => Some(UnroutableReason::NoTunnel),
            (Link::Direct(_), Reach::Unverified) => Some(UnroutableReason::Unverified),
            (Link::Direct(_), Reach::Unreachable) => Some(UnroutableReason::Unreachable),
        }
    }

    /// Returns how its runtime is reached; a tunnel counts only for the process that has dialled it.
    pub(super) fn link(&self) -> Link {
        if let Some(endpoint) = self.stored.endpoint() {
            return Link::Direct(endpoint);
        }
        let session = self.stored.session;
        let tunnel = self.tunnel.filter(|tunnel| Some(tunnel.session) == session);
        Link::Tunnel(tunnel.map(|tunnel| tunnel.id))
    }

    pub(super) fn is_draining(&self) -> bool {
        self.stored.draining || self.leaving
    }

    /// Returns whether an agent process stands behind this record and reports on the runtime.
    pub(super) fn has_agent_process(&self) -> bool {
        self.stored.session.is_some()
    }

    /// Returns when the agent was last heard of, never later than `now`.
    ///
    /// It is counted back on the monotonic clock, so that a wall clock that is set does not matter.
    pub(super) fn last_seen(&self, now: Moment) -> DateTime<Utc> {
        match self.last_seen {
            Some(seen) => now.wall - now.mono.saturating_duration_since(seen),
            None => self.stored.last_seen.min(now.wall),
        }
    }

    /// Returns whether the agent is only presumed alive since the coordinator started.
    pub(super) fn is_presumed(&self) -> bool {
        self.lease.is_some() && self.last_seen.is_none()
    }

    /// Keeps the runtime as `before` had it: heartbeats are newer than what was staged.
    pub(super) fn keep_report_of(&mut self, before: &StoredAgent) {
        if self.stored.runtime != before.runtime {
            Arc::make_mut(&mut self.stored)
                .runtime
                .clone_from(&before.runtime);
        }
    }

    /// Takes back a goodbye.
    pub(super) fn come_back(&mut self) {
        Arc::make_mut(&mut self.stored).left_at = None;
        self.unsaved = true;
    }

    /// Takes over what the runtime looks like and returns whether anything changed.
    pub(super) fn apply_report(&mut self, report: RuntimeReport) -> bool {
        if self.stored.runtime == report {
            return false;
        }
        Arc::make_mut(&mut self.stored).runtime = report;
        self.unsaved = true;
        true
    }

    /// Takes over whether its owner has paused it and returns whether anything changed.
    pub(super) fn apply_pause(&mut self, paused: Option<Paused>, now: DateTime<Utc>) -> bool {
        let paused = paused.map(|paused| StoredPause::new(paused, now));
        let is_same = match (self.stored.paused, paused) {
            (Some(known), Some(told)) => known.is_same_as(told),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_same {
            return false;
        }
        Arc::make_mut(&mut self.stored).paused = paused;
        self.unsaved = true;
        true
    }

    /// Returns what the balancer has to know.
    pub(super) fn routing_facts(&self) -> RoutingFacts {
        RoutingFacts {
            stored: Arc::clone(&self.stored),
            link: self.link(),
            metrics: self.metrics.clone(),
            in_flight: Arc::clone(&self.in_flight),
            is_routable: self.unroutable_but_for_ejection().is_none(),
            is_suspect: self.trust().is_some_and(|trust| trust != Trust::Full),
            registrations: self.registrations,
        }
    }

    /// Returns the record as it should be saved now.
    pub(super) fn to_save(&self, now: Moment) -> Arc<StoredAgent> {
        let mut stored = StoredAgent::clone(&self.stored);
        stored.last_seen = self.last_seen(now);
        stored.verified = self.reach == Reach::Reachable;
        Arc::new(stored)
    }

    pub(super) fn snapshot(&self, now: Moment) -> AgentSnapshot {
        AgentSnapshot {
            stored: Arc::clone(&self.stored),
            link: self.link(),
            status: self.status(),
            reason: self.unroutable(),
            warning: self.warning(),
            draining: self.is_draining(),
            last_seen: self.last_seen(now),
            metrics: self.metrics.clone(),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }
}

/// An agent that the balancer may choose from.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Who it is.
    pub id: AgentId,
    /// What to call it in headers and logs.
    pub name: Arc<str>,
    /// How to reach its runtime.
    pub link: Link,
    /// Whether it speaks Ollama's own API.
    pub speaks_ollama: bool,
    /// Shows the requests it is serving now; the balancer counts them.
    pub in_flight: Arc<AtomicU32>,
}

/// How an upstream is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// The coordinator dials the runtime's address and port.
    Direct(SocketAddr),
    /// The agent carries requests over a connection that it has dialled, when that is up.
    Tunnel(Option<TunnelId>),
}

/// One of the connections that agents have dialled to carry requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u64);
