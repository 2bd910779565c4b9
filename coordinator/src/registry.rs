//! The set of agents: who is known, who is alive, who may get requests.
//!
//! [`Registry`] is a cheap handle over a pure table. It hands changes to storage and answers when
//! they are durable; it knows no HTTP and no files, and no lock guard leaves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::{AgentId, InstanceId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeReport};
use ollama_coordinator_common::protocol::view::PatchAgentRequest;
use ollama_coordinator_common::secret::SecretHash;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, broadcast, oneshot};
use tokio::time::Instant;

use crate::storage::Change;
use crate::storage::agent::StoredAgent;
use crate::storage::writer::{CommitError, Writer};

pub mod agent;
pub mod candidates;
pub mod lease;
mod list;
mod reading;
pub mod reaper;
pub mod registration;
pub mod routing;
pub mod saver;
pub mod snapshot;
pub mod table;
pub mod transition;

use agent::{Moment, TunnelId};
use lease::LeasePolicy;
use list::ListCache;
use registration::{Granted, NewAgent, RegisterError};
use routing::{RoutingChanges, RoutingFeed};
use table::{
    AgentTable, ReachCheck, Registration, RenewError, Renewed, Ticket, TunnelError, Unsaved,
};
use transition::Transition;

/// How many transitions a slow reader may fall behind.
const TRANSITION_BACKLOG: usize = 4_096;
/// How long a save waits for more to save.
const SAVE_DELAY: Duration = Duration::from_millis(500);

/// A handle to the one registry of this process.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    table: Mutex<AgentTable>,
    writer: Writer,
    instance_id: InstanceId,
    transitions: broadcast::Sender<Transition>,
    reach_wanted: Notify,
    routing: RoutingFeed,
    list: ListCache,
    brief: ListCache,
    save_wanted: Notify,
    heartbeats: AtomicU64,
    registrations: AtomicU64,
    expired_leases: AtomicU64,
    missing_heartbeats: AtomicU64,
}

/// Why a change of a known agent failed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no such agent.
    #[error("no agent has this id")]
    UnknownAgent,
    /// The secret that belongs to it was not presented.
    #[error("the secret that belongs to this agent was not presented")]
    WrongSecret,
    /// It could not be made durable.
    #[error("failed to make the change durable")]
    NotDurable(#[source] CommitError),
}

impl Registry {
    /// Makes a registry that knows what storage had.
    pub fn new(
        policy: LeasePolicy,
        writer: Writer,
        agents: Vec<StoredAgent>,
        saved_at: Option<DateTime<Utc>>,
    ) -> Self {
        let mut table = AgentTable::new(policy);
        table.restore(agents, saved_at, Moment::now());
        let routing = RoutingFeed::default();
        routing.push(table.take_routing_changes());
        Self(Arc::new(Shared {
            table: Mutex::new(table),
            writer,
            instance_id: InstanceId::new(),
            transitions: broadcast::Sender::new(TRANSITION_BACKLOG),
            reach_wanted: Notify::new(),
            routing,
            list: ListCache::default(),
            brief: ListCache::default(),
            save_wanted: Notify::new(),
            heartbeats: AtomicU64::new(0),
            registrations: AtomicU64::new(0),
            expired_leases: AtomicU64::new(0),
            missing_heartbeats: AtomicU64::new(0),
        }))
    }

    /// Returns the id of this coordinator run.
    pub fn instance_id(&self) -> InstanceId {
        self.0.instance_id
    }

    /// Registers an agent; it is durable when this returns.
    pub async fn register(&self, new: NewAgent) -> Result<Granted, RegisterError> {
        let committed = {
            let mut table = self.0.table.lock();
            match table.register(&new, Moment::now())? {
                Registration::Settled(granted) => {
                    self.tell_unlocking(table);
                    self.0.registrations.fetch_add(1, Ordering::Relaxed);
                    return Ok(granted);
                }
                Registration::Staged(ticket) => self.commit(&mut table, ticket),
            }
        };
        let granted = committed.await.map_err(RegisterError::NotDurable)?;
        self.0.registrations.fetch_add(1, Ordering::Relaxed);
        Ok(granted.expect("publishing a registration grants a lease"))
    }

    /// Renews the lease of an agent. Never touches storage.
    pub fn renew(
        &self,
        id: AgentId,
        secret: Option<SecretHash>,
        heartbeat: HeartbeatRequest,
    ) -> Result<Renewed, RenewError> {
        self.0.heartbeats.fetch_add(1, Ordering::Relaxed);
        let mut table = self.0.table.lock();
        let renewed = table.renew(id, secret, heartbeat, Moment::now());
        self.tell_unlocking(table);
        renewed
    }

    /// Marks an agent as having said goodbye: offline at once, record kept.
    ///
    /// A goodbye of another session than the current one changes nothing.
    pub async fn leave(
        &self,
        id: AgentId,
        secret: Option<SecretHash>,
        session: Option<SessionId>,
    ) -> Result<(), UpdateError> {
        let committed = {
            let mut table = self.0.table.lock();
            match table.leave(id, secret, session, Moment::now())? {
                Some(ticket) => self.commit(&mut table, ticket),
                None => return Ok(()),
            }
        };
        committed.await.map_err(UpdateError::NotDurable)?;
        Ok(())
    }

    /// Changes what the operator may change.
    pub async fn patch(&self, id: AgentId, patch: PatchAgentRequest) -> Result<(), UpdateError> {
        let committed = {
            let mut table = self.0.table.lock();
            let ticket = table.patch(id, patch, Moment::now());
            self.commit(&mut table, ticket.ok_or(UpdateError::UnknownAgent)?)
        };
        committed.await.map_err(UpdateError::NotDurable)?;
        Ok(())
    }

    /// Forgets an agent.
    pub async fn remove(&self, id: AgentId) -> Result<(), UpdateError> {
        let committed = {
            let mut table = self.0.table.lock();
            let ticket = table
                .remove(id, Moment::now())
                .ok_or(UpdateError::UnknownAgent)?;
            self.commit(&mut table, ticket)
        };
        committed.await.map_err(UpdateError::NotDurable)?;
        Ok(())
    }

    /// Returns whether a session of an agent may open a tunnel.
    pub fn may_open_tunnel(
        &self,
        id: AgentId,
        secret: Option<SecretHash>,
        session: SessionId,
    ) -> Result<(), TunnelError> {
        self.0.table.lock().may_open_tunnel(id, secret, session)
    }

    /// Takes a tunnel into use, and returns the one that it replaces.
    pub fn open_tunnel(&self, id: AgentId, tunnel: (TunnelId, SessionId)) -> Option<TunnelId> {
        let mut table = self.0.table.lock();
        let replaced = table.open_tunnel(id, tunnel, Moment::now());
        self.tell_unlocking(table);
        replaced
    }

    /// Returns whether an agent that has a model may be back at once.
    pub fn awaits(&self, model: &str) -> bool {
        self.0.table.lock().awaits(model, Instant::now())
    }

    /// Returns whether an agent that has a model gets no requests because its owner paused it.
    pub fn is_paused(&self, model: &str) -> bool {
        self.0.table.lock().is_paused(model)
    }

    /// Returns the tunnel of an agent.
    pub fn tunnel_of(&self, id: AgentId) -> Option<TunnelId> {
        self.0.table.lock().tunnel_of(id)
    }

    /// Takes a tunnel out of use that has ended.
    pub fn close_tunnel(&self, id: AgentId, tunnel: TunnelId) {
        let mut table = self.0.table.lock();
        table.close_tunnel(id, tunnel, Moment::now());
        self.tell_unlocking(table);
    }

    /// Takes what has changed for the balancer; there is one, which takes it under its own lock.
    pub fn take_routing_changes(&self) -> RoutingChanges {
        self.0.routing.take()
    }

    /// Resolves when something may have changed for the balancer.
    pub async fn routing_changed(&self) {
        self.0.routing.changed().await;
    }

    /// Notes whether the balancer gives an agent no requests for a while.
    pub fn set_ejected(&self, id: AgentId, is_ejected: bool) {
        let mut table = self.0.table.lock();
        table.set_ejected(id, is_ejected, Moment::now());
        self.tell_unlocking(table);
    }

    /// Returns the writer that this registry commits through.
    pub fn writer(&self) -> Writer {
        self.0.writer.clone()
    }

    /// Follows what happens to agents from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Transition> {
        self.0.transitions.subscribe()
    }

    /// Suspects whose heartbeat is missing, and marks as offline whose lease has run out.
    pub fn sweep(&self) {
        let now = Moment::now();
        let mut table = self.0.table.lock();
        table.sweep(now);
        if table.is_reach_due(now.mono) {
            self.0.reach_wanted.notify_one();
        }
        self.tell_unlocking(table);
    }

    /// Gives every online agent a fresh lease after the coordinator itself was away.
    pub fn restart_leases(&self, away: Duration) {
        self.0.table.lock().restart_leases(Instant::now(), away);
    }

    /// Saves what has changed without having to be durable at once, such as the times last seen.
    pub async fn save(&self, which: Unsaved) -> Result<(), CommitError> {
        let (settled, answer) = oneshot::channel();
        {
            let mut table = self.0.table.lock();
            let unsaved = table.take_unsaved(which, Moment::now());
            if unsaved.is_empty() {
                return Ok(());
            }
            let registry = self.clone();
            let put = |stored: &Arc<StoredAgent>| Change::Put(Arc::clone(stored));
            let changes = unsaved.iter().map(put).collect();
            let taken = unsaved.clone();
            let submitted = self.0.writer.submit(changes, move |committed| {
                if committed.is_err() {
                    registry.0.table.lock().put_back_unsaved(&taken);
                }
                // The caller may have gone; what is saved is saved.
                drop(settled.send(committed));
            });
            if submitted.is_err() {
                table.put_back_unsaved(&unsaved);
            }
            submitted?;
        }
        answer.await.unwrap_or(Err(CommitError::Stopped))
    }

    /// Resolves when something should be saved soon: an agent is back, so that its time last seen
    /// in the file no longer tells that it lives.
    pub async fn save_wanted(&self) {
        self.0.save_wanted.notified().await;
        tokio::time::sleep(SAVE_DELAY).await;
    }

    /// Has an agent's address tried soon, because a request could not be sent there.
    pub fn doubt_reach(&self, id: AgentId) {
        self.0.table.lock().doubt_reach(id, Instant::now());
        self.0.reach_wanted.notify_one();
    }

    /// Takes up to `most` addresses that have to be tried.
    pub fn take_reach_checks(&self, most: usize) -> Vec<ReachCheck> {
        self.0.table.lock().take_reach_checks(Instant::now(), most)
    }

    /// Takes over what was found at an address: a report, or nothing.
    pub fn record_reach(&self, check: ReachCheck, found: Option<RuntimeReport>) {
        let mut table = self.0.table.lock();
        table.record_reach(check, found, Moment::now());
        self.tell_unlocking(table);
    }

    /// Takes over which models an agent's runtime says that it has, after it was changed.
    pub fn set_models(&self, id: AgentId, models: Vec<Model>) {
        let mut table = self.0.table.lock();
        table.set_models(id, models, Moment::now());
        self.tell_unlocking(table);
    }

    /// Resolves when an address may have to be tried.
    pub async fn reach_wanted(&self) {
        self.0.reach_wanted.notified().await;
    }

    /// Hands a staged change to storage, in the order of staging, and publishes it when durable.
    fn commit(
        &self,
        table: &mut AgentTable,
        ticket: Ticket,
    ) -> impl Future<Output = Result<Option<Granted>, CommitError>> + use<> {
        let (settled, answer) = oneshot::channel();
        let registry = self.clone();
        let staged = ticket.clone();
        let submitted = self
            .0
            .writer
            .submit(vec![ticket.to_commit()], move |committed| {
                let outcome = registry.settle(staged, committed);
                // The caller may have gone; the change stands all the same.
                drop(settled.send(outcome));
            });
        if submitted.is_err() {
            table.abandon(&ticket, Moment::now());
        }
        async move {
            submitted?;
            answer.await.unwrap_or(Err(CommitError::Stopped))
        }
    }

    fn settle(
        &self,
        ticket: Ticket,
        committed: Result<(), CommitError>,
    ) -> Result<Option<Granted>, CommitError> {
        let mut table = self.0.table.lock();
        let outcome = match committed {
            Ok(()) => Ok(table.publish(ticket, Moment::now())),
            Err(error) => {
                table.abandon(&ticket, Moment::now());
                Err(error)
            }
        };
        self.tell_unlocking(table);
        outcome
    }

    /// Tells subscribers in the order of events, then unlocks, then writes the log.
    fn tell_unlocking(&self, mut table: MutexGuard<'_, AgentTable>) {
        let transitions = table.take_transitions();
        self.0.routing.push(table.take_routing_changes());
        if table.take_save_soon() {
            self.0.save_wanted.notify_one();
        }
        if transitions.is_empty() {
            return;
        }
        if self.0.transitions.receiver_count() > 0 {
            for transition in &transitions {
                // The last reader may have gone just now.
                drop(self.0.transitions.send(transition.clone()));
            }
        }
        drop(table);
        for transition in transitions {
            transition.log();
            match transition {
                Transition::Expired { .. } => {
                    self.0.expired_leases.fetch_add(1, Ordering::Relaxed);
                }
                Transition::HeartbeatsMissing { .. } => {
                    self.0.missing_heartbeats.fetch_add(1, Ordering::Relaxed);
                }
                Transition::Joined(_)
                | Transition::Returned(_)
                | Transition::RoutabilityChanged(_) => self.0.reach_wanted.notify_one(),
                Transition::Left(_)
                | Transition::Changed(_)
                | Transition::Removed(_)
                | Transition::EndpointShared { .. }
                | Transition::IsolationSuspected { .. } => {}
            }
        }
    }
}

impl From<RenewError> for UpdateError {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::UnknownAgent => Self::UnknownAgent,
            RenewError::WrongSecret | RenewError::DuplicateIdentity => Self::WrongSecret,
        }
    }
}
