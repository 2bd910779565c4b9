//! One run of the coordinator: the real table, store and lease arithmetic.
//!
//! What in the product is a thread, a task or a lock around them is a few lines here, driven by the
//! world's clock: the writer's group commit, the reaper, the saver.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ollama_agent::session::state::Failure;
use ollama_coordinator::registry::agent::{Moment, TunnelId};
use ollama_coordinator::registry::lease::{LeasePolicy, pause_grace};
use ollama_coordinator::registry::registration::{Granted, NewAgent, RegisterError};
use ollama_coordinator::registry::table::{
    AgentTable, ReachCheck, Registration, RenewError, Ticket, TunnelError, Unsaved,
};
use ollama_coordinator::registry::transition::Transition;
use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::json::{JsonStore, Limits};
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Change, Store as _};
use ollama_coordinator_common::id::{AgentId, InstanceId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::register::LeaseTerms;
use ollama_coordinator_common::protocol::view::PatchAgentRequest;

use crate::disk::Disk;
use crate::message::{Credentials, Exchange, ProcessId, Reply, Request, Terms};

const DATA: &str = "/data";
/// Fleets of some twenty machines and more have a journal.
const LIMITS: Limits = Limits {
    small_file: 20_000,
    journal_percent: 100,
};
/// How late a tick of the reaper means that the process was paused, as in the product.
const PAUSE: Duration = Duration::from_secs(1);
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// What a refusal for want of storage asks for.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a failed store is left alone.
const BACK_OFF: Duration = Duration::from_secs(1);

pub(crate) struct Coordinator {
    pub(crate) table: AgentTable,
    pub(crate) run: u32,
    pub(crate) tunnels: BTreeMap<TunnelId, (AgentId, ProcessId)>,
    instance: InstanceId,
    store: JsonStore,
    waiting: Vec<Submission>,
    committing: Vec<Submission>,
    retry_at: Option<Duration>,
    last_tick: Duration,
    next_tunnel: u64,
    effects: Vec<Effect>,
}

/// What becomes of something that was done; the world carries it out and the checker sees it.
#[derive(Debug)]
pub(crate) enum Effect {
    Answer(Exchange, Reply),
    /// The writer's thread has work.
    CommitBegins,
    SaveSoon,
    Look(ReachCheck),
    Happened(Transition),
    /// An agent was heard of.
    Heard(AgentId),
    Granted(Granted, Option<SessionId>),
    Left(AgentId),
    Patched(AgentId, u64),
    Removed(AgentId),
    TunnelClosed(AgentId),
    /// The coordinator was away; nobody is taken offline for so long.
    Paused(Duration),
}

enum Submission {
    Staged(Ticket, Purpose),
    Save(Vec<Arc<StoredAgent>>),
}

enum Purpose {
    Register(Exchange, Option<SessionId>),
    Goodbye(Exchange, AgentId),
    Patch(AgentId, u64),
    Remove(AgentId),
}

impl Coordinator {
    /// Starts on what the disk has.
    pub(crate) fn start(
        run: u32,
        policy: LeasePolicy,
        disk: &Disk,
        (at, now): (Duration, Moment),
    ) -> (Self, Recovery) {
        let store = JsonStore::on(Arc::new(disk.clone()), Path::new(DATA), None);
        let mut store = store.with_limits(LIMITS);
        let loaded = store.load().expect("the disk can be read");
        let mut table = AgentTable::new(policy);
        table.restore(loaded.agents, loaded.saved_at, now);
        let coordinator = Self {
            table,
            run,
            tunnels: BTreeMap::new(),
            instance: InstanceId::from_u128(u128::from(run) + 1),
            store,
            waiting: Vec::new(),
            committing: Vec::new(),
            retry_at: None,
            last_tick: at,
            next_tunnel: u64::from(run) << 32,
            effects: Vec::new(),
        };
        (coordinator, loaded.recovery)
    }

    /// Takes what has become of everything since the last call.
    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        let transitions = self.table.take_transitions();
        self.effects
            .extend(transitions.into_iter().map(Effect::Happened));
        if self.table.take_save_soon() {
            self.effects.push(Effect::SaveSoon);
        }
        drop(self.table.take_routing_changes());
        std::mem::take(&mut self.effects)
    }

    pub(crate) fn handle(&mut self, exchange: Exchange, request: Request, now: Moment) {
        match request {
            Request::Register(new) => self.register(exchange, &new, now),
            Request::Heartbeat(who, beat) => self.renew(exchange, who, *beat, now),
            Request::Goodbye(who, session) => self.leave(exchange, who, session, now),
            Request::Tunnel(who, session) => self.open_tunnel(exchange, who, session, now),
        }
    }

    fn register(&mut self, exchange: Exchange, new: &NewAgent, now: Moment) {
        match self.table.register(new, now) {
            Ok(Registration::Settled(granted)) => self.granted(exchange, granted, new.session),
            Ok(Registration::Staged(ticket)) => {
                let purpose = Purpose::Register(exchange, new.session);
                self.submit(Submission::Staged(ticket, purpose));
            }
            Err(error) => self.fail(
                exchange,
                match error {
                    RegisterError::DuplicateIdentity => Failure::DuplicateIdentity,
                    RegisterError::WrongSecret => Failure::Refused,
                    RegisterError::Full(_) | RegisterError::NotDurable(_) => busy(),
                },
            ),
        }
    }

    fn granted(&mut self, exchange: Exchange, granted: Granted, session: Option<SessionId>) {
        self.effects.push(Effect::Heard(granted.id));
        self.effects.push(Effect::Granted(granted, session));
        let terms = self.terms(granted.epoch, granted.terms.into());
        self.answer(exchange, Reply::Granted(terms));
    }

    fn renew(&mut self, exchange: Exchange, who: Credentials, beat: HeartbeatRequest, now: Moment) {
        match self.table.renew(who.id, Some(who.secret), beat, now) {
            Ok(renewed) => {
                // One that was overtaken is answered, and is no sign of life.
                let agent = self.table.get(who.id, now);
                if agent.is_some_and(|agent| agent.last_seen == now.wall) {
                    self.effects.push(Effect::Heard(who.id));
                }
                let terms = self.terms(renewed.epoch, renewed.terms.into());
                self.answer(exchange, Reply::Renewed(terms));
            }
            Err(error) => self.fail(exchange, refusal(error)),
        }
    }

    fn leave(&mut self, exchange: Exchange, who: Credentials, session: SessionId, now: Moment) {
        match self
            .table
            .leave(who.id, Some(who.secret), Some(session), now)
        {
            Ok(Some(ticket)) => {
                self.submit(Submission::Staged(
                    ticket,
                    Purpose::Goodbye(exchange, who.id),
                ));
            }
            Ok(None) => self.answer(exchange, Reply::Left),
            Err(error) => self.fail(exchange, refusal(error)),
        }
    }

    fn open_tunnel(
        &mut self,
        exchange: Exchange,
        who: Credentials,
        session: SessionId,
        now: Moment,
    ) {
        match self
            .table
            .may_open_tunnel(who.id, Some(who.secret), session)
        {
            Ok(()) => {
                self.next_tunnel += 1;
                let tunnel = TunnelId(self.next_tunnel);
                let replaced = self.table.open_tunnel(who.id, (tunnel, session), now);
                if replaced != Some(tunnel) {
                    self.tunnels.insert(tunnel, (who.id, exchange.from));
                    self.effects.push(Effect::Heard(who.id));
                }
                if let Some(replaced) = replaced {
                    self.tunnels.remove(&replaced);
                }
                self.answer(exchange, Reply::TunnelOpen(tunnel));
            }
            Err(TunnelError::Unproven(error)) => self.fail(exchange, refusal(error)),
            Err(TunnelError::Direct) => self.fail(exchange, Failure::Refused),
        }
    }

    pub(crate) fn close_tunnel(&mut self, tunnel: TunnelId, now: Moment) {
        if let Some((id, _)) = self.tunnels.remove(&tunnel) {
            self.table.close_tunnel(id, tunnel, now);
            self.effects.push(Effect::TunnelClosed(id));
        }
    }

    /// What an operator changes.
    pub(crate) fn patch(&mut self, id: AgentId, note: u64, now: Moment) {
        let patch = PatchAgentRequest {
            notes: Some(note.to_string()),
            ..PatchAgentRequest::default()
        };
        if let Some(ticket) = self.table.patch(id, patch, now) {
            self.submit(Submission::Staged(ticket, Purpose::Patch(id, note)));
        }
    }

    /// An operator has an agent forgotten.
    pub(crate) fn remove(&mut self, id: AgentId, now: Moment) {
        if let Some(ticket) = self.table.remove(id, now) {
            self.submit(Submission::Staged(ticket, Purpose::Remove(id)));
        }
    }

    pub(crate) fn save(&mut self, which: Unsaved, now: Moment) {
        let unsaved = self.table.take_unsaved(which, now);
        if !unsaved.is_empty() {
            self.submit(Submission::Save(unsaved));
        }
    }

    /// Looks at leases, as the reaper does, and then which addresses have to be tried.
    pub(crate) fn tick(&mut self, at: Duration, now: Moment) {
        self.reap(at, now);
        self.take_looks(now);
    }

    pub(crate) fn take_looks(&mut self, now: Moment) {
        let looks = self.table.take_reach_checks(now.mono, usize::MAX);
        self.effects.extend(looks.into_iter().map(Effect::Look));
    }

    fn reap(&mut self, at: Duration, now: Moment) {
        let lag = at.saturating_sub(self.last_tick).saturating_sub(TICK);
        self.last_tick = at;
        if lag >= PAUSE {
            self.table.restart_leases(now.mono, lag);
            self.effects.push(Effect::Paused(pause_grace(lag)));
        }
        self.table.sweep(now);
    }

    fn submit(&mut self, submission: Submission) {
        self.waiting.push(submission);
        self.begin_commit();
    }

    fn begin_commit(&mut self) {
        if self.committing.is_empty() && !self.waiting.is_empty() {
            self.committing = std::mem::take(&mut self.waiting);
            self.effects.push(Effect::CommitBegins);
        }
    }

    /// Ends the commit that runs: publishes what is durable, in order, and answers.
    pub(crate) fn finish_commit(&mut self, at: Duration, now: Moment) {
        let batch = std::mem::take(&mut self.committing);
        let is_durable = self.retry_at.is_none_or(|retry_at| retry_at <= at) && {
            let changes: Vec<Change> = batch.iter().flat_map(Submission::changes).collect();
            let committed = self.store.commit(&changes).is_ok();
            self.retry_at = (!committed).then_some(at + BACK_OFF);
            committed
        };
        for submission in batch {
            match (submission, is_durable) {
                (Submission::Staged(ticket, purpose), true) => {
                    let granted = self.table.publish(ticket, now);
                    self.published(purpose, granted, now);
                }
                (Submission::Staged(ticket, purpose), false) => {
                    self.table.abandon(&ticket, now);
                    if let Purpose::Register(exchange, _) | Purpose::Goodbye(exchange, _) = purpose
                    {
                        self.fail(exchange, busy());
                    }
                }
                (Submission::Save(_), true) => {}
                (Submission::Save(taken), false) => self.table.put_back_unsaved(&taken),
            }
        }
        self.begin_commit();
    }

    fn published(&mut self, purpose: Purpose, granted: Option<Granted>, now: Moment) {
        match purpose {
            Purpose::Register(exchange, session) => {
                let granted = granted.expect("publishing a registration grants a lease");
                self.granted(exchange, granted, session);
            }
            Purpose::Goodbye(exchange, id) => {
                // The goodbye of a session that was replaced meanwhile changes nothing.
                let agent = self.table.get(id, now);
                if agent.is_some_and(|agent| agent.stored.left_at.is_some()) {
                    self.effects.push(Effect::Left(id));
                }
                self.answer(exchange, Reply::Left);
            }
            Purpose::Patch(id, note) => self.effects.push(Effect::Patched(id, note)),
            Purpose::Remove(id) => {
                self.tunnels.retain(|_, (other, _)| *other != id);
                self.effects.push(Effect::Removed(id));
            }
        }
    }

    /// Is killed: what is being committed gets as far as the disk's budget lets it.
    pub(crate) fn die(mut self) {
        let changes: Vec<Change> = self
            .committing
            .iter()
            .flat_map(Submission::changes)
            .collect();
        if !changes.is_empty() {
            // Nobody is left to hear what came of it.
            drop(self.store.commit(&changes));
        }
    }

    fn terms(&self, epoch: u64, lease: LeaseTerms) -> Terms {
        Terms {
            epoch,
            lease,
            instance: self.instance,
        }
    }

    fn answer(&mut self, exchange: Exchange, reply: Reply) {
        self.effects.push(Effect::Answer(exchange, reply));
    }

    fn fail(&mut self, exchange: Exchange, failure: Failure) {
        self.answer(exchange, Reply::Failed(failure));
    }
}

impl Submission {
    fn changes(&self) -> Vec<Change> {
        match self {
            Self::Staged(ticket, _) => vec![ticket.to_commit()],
            Self::Save(agents) => agents
                .iter()
                .map(|agent| Change::Put(Arc::clone(agent)))
                .collect(),
        }
    }
}

fn busy() -> Failure {
    Failure::Busy {
        retry_after: Some(RETRY_AFTER),
    }
}

fn refusal(error: RenewError) -> Failure {
    match error {
        RenewError::UnknownAgent => Failure::UnknownAgent,
        RenewError::WrongSecret => Failure::Refused,
        RenewError::DuplicateIdentity => Failure::DuplicateIdentity,
    }
}
