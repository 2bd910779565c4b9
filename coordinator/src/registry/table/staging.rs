//! Changes on their way to storage: staged, committed by the caller, then published or abandoned.
//!
//! Until a change is published, readers see the record before. Changes are published in the order
//! in which they were staged. An edit is applied to the record as it is when it is published, so
//! that what heartbeats brought meanwhile stays.

use std::num::NonZeroU32;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::view::PatchAgentRequest;
use ollama_coordinator_common::secret::SecretHash;

use super::super::agent::Moment;
use super::super::registration::{Granted, NewAgent, RegisterError, is_unchanged};
use super::{AgentTable, MAX_AGENTS, RenewError, place_of};
use crate::storage::Change;
use crate::storage::agent::StoredAgent;

/// A change on its way to storage.
#[derive(Debug, Clone)]
pub struct Ticket {
    id: AgentId,
    version: u64,
    change: StagedChange,
}

#[derive(Debug, Clone)]
enum StagedChange {
    Register {
        record: Arc<StoredAgent>,
        brings_report: bool,
    },
    Edit {
        record: Arc<StoredAgent>,
        edit: Edit,
    },
    Remove,
}

/// A change of a known record.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// The operator's.
    Patch(PatchAgentRequest),
    /// The end of a session.
    Goodbye {
        session: Option<SessionId>,
        at: DateTime<Utc>,
    },
}

/// What a registration leads to.
#[derive(Debug)]
pub enum Registration {
    /// Nothing has to be written.
    Settled(Granted),
    /// The ticket has to be committed and published.
    Staged(Ticket),
}

impl Ticket {
    /// Returns what storage has to commit.
    pub fn to_commit(&self) -> Change {
        match &self.change {
            StagedChange::Register { record, .. } | StagedChange::Edit { record, .. } => {
                Change::Put(Arc::clone(record))
            }
            StagedChange::Remove => Change::Remove(self.id),
        }
    }

    /// Returns the record as it is when this is published; `None`: the agent is forgotten.
    pub(super) fn staged_record(&self) -> Option<&Arc<StoredAgent>> {
        match &self.change {
            StagedChange::Register { record, .. } | StagedChange::Edit { record, .. } => {
                Some(record)
            }
            StagedChange::Remove => None,
        }
    }
}

impl Edit {
    pub(super) fn apply(&self, record: &mut StoredAgent) {
        match self {
            Self::Patch(patch) => apply_patch(record, patch),
            Self::Goodbye { session, at } if *session == record.session => {
                record.left_at = Some(*at);
            }
            Self::Goodbye { .. } => {}
        }
    }
}

impl AgentTable {
    /// Decides a registration.
    pub fn register(&mut self, new: &NewAgent, now: Moment) -> Result<Registration, RegisterError> {
        let id = self.identify(new)?;
        let known = self.current(id, now);
        match &known {
            Some(known) if !new.may_act_for(known) => return Err(RegisterError::WrongSecret),
            Some(_) if self.is_refused(id, new) => return Err(RegisterError::DuplicateIdentity),
            None if self.records.len() + self.staged.len() >= MAX_AGENTS => {
                return Err(RegisterError::Full(MAX_AGENTS));
            }
            Some(_) | None => {}
        }
        let record = new.record(id, known.as_deref(), now.wall);
        let brings_report = new.runtime.is_some();
        let settled = !self.staged.contains_key(&id)
            && known
                .as_deref()
                .is_some_and(|known| is_unchanged(known, &record));
        if settled {
            let granted = self.apply_registration(record, brings_report, now);
            return Ok(Registration::Settled(granted));
        }
        self.by_endpoint.extend(place_of(&record));
        let change = StagedChange::Register {
            record,
            brings_report,
        };
        Ok(Registration::Staged(self.stage(id, change)))
    }

    /// Stages what the operator changes; `None` when there is no such agent.
    pub fn patch(&mut self, id: AgentId, patch: PatchAgentRequest, now: Moment) -> Option<Ticket> {
        let known = self.current(id, now)?;
        Some(self.stage_edit(id, &known, Edit::Patch(patch)))
    }

    /// Stages a goodbye; `None` when it is that of a session which is no longer the agent's.
    pub fn leave(
        &mut self,
        id: AgentId,
        secret: Option<SecretHash>,
        session: Option<SessionId>,
        now: Moment,
    ) -> Result<Option<Ticket>, RenewError> {
        let known = self.current(id, now).ok_or(RenewError::UnknownAgent)?;
        if known.secret_hash.is_some() && known.secret_hash != secret {
            return Err(RenewError::WrongSecret);
        }
        if session.is_some() && known.session != session {
            return Ok(None);
        }
        let goodbye = Edit::Goodbye {
            session: known.session,
            at: now.wall,
        };
        Ok(Some(self.stage_edit(id, &known, goodbye)))
    }

    /// Stages that an agent is forgotten; `None` when there is no such agent.
    pub fn remove(&mut self, id: AgentId, now: Moment) -> Option<Ticket> {
        self.current(id, now)?;
        Some(self.stage(id, StagedChange::Remove))
    }

    /// Makes a change visible that storage now has.
    pub fn publish(&mut self, ticket: Ticket, now: Moment) -> Option<Granted> {
        self.unstage(&ticket);
        match ticket.change {
            StagedChange::Register {
                record,
                brings_report,
            } => Some(self.apply_registration(record, brings_report, now)),
            StagedChange::Edit { edit, .. } => {
                self.apply_edit(ticket.id, &edit, now);
                None
            }
            StagedChange::Remove => {
                self.apply_removal(ticket.id);
                None
            }
        }
    }

    /// Forgets a change that storage refused.
    pub fn abandon(&mut self, ticket: &Ticket, now: Moment) {
        self.unstage(ticket);
        let Some(refused) = ticket.staged_record() else {
            return;
        };
        let Some(place) = place_of(refused) else {
            return;
        };
        let published = self.records.get(&ticket.id);
        let published = published.and_then(|record| place_of(&record.stored));
        let current = self.current(ticket.id, now);
        let current = current.and_then(|record| place_of(&record));
        if published != Some(place) && current != Some(place) {
            self.by_endpoint.remove(&place);
        }
    }

    /// Returns the newest record of an agent, whether it is durable yet or not.
    pub(super) fn current(&self, id: AgentId, now: Moment) -> Option<Arc<StoredAgent>> {
        match self.staged.get(&id) {
            Some(ticket) => ticket.staged_record().map(Arc::clone),
            None => self.records.get(&id).map(|record| record.to_save(now)),
        }
    }

    fn stage_edit(&mut self, id: AgentId, known: &StoredAgent, edit: Edit) -> Ticket {
        let mut record = known.clone();
        edit.apply(&mut record);
        self.stage(
            id,
            StagedChange::Edit {
                record: Arc::new(record),
                edit,
            },
        )
    }

    fn stage(&mut self, id: AgentId, change: StagedChange) -> Ticket {
        self.next_version += 1;
        let ticket = Ticket {
            id,
            version: self.next_version,
            change,
        };
        self.staged.insert(id, ticket.clone());
        ticket
    }

    fn unstage(&mut self, ticket: &Ticket) {
        let is_newest = self
            .staged
            .get(&ticket.id)
            .is_some_and(|s| s.version == ticket.version);
        if is_newest {
            self.staged.remove(&ticket.id);
        }
    }

    fn is_refused(&self, id: AgentId, new: &NewAgent) -> bool {
        let refused = self
            .records
            .get(&id)
            .and_then(|record| record.refused_session);
        refused.is_some() && refused == new.session
    }
}

fn apply_patch(record: &mut StoredAgent, patch: &PatchAgentRequest) {
    let unless_empty = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    if let Some(name) = &patch.display_name {
        record.display_name = unless_empty(name);
    }
    if let Some(notes) = &patch.notes {
        record.notes = unless_empty(notes);
    }
    if let Some(labels) = &patch.labels {
        record.labels.clone_from(labels);
    }
    if let Some(draining) = patch.draining {
        record.draining = draining;
    }
    if let Some(capacity) = patch.capacity {
        record.capacity = NonZeroU32::new(capacity);
    }
}
