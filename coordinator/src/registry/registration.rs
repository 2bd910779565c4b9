//! Who may register as whom, and what the record looks like afterwards. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::pause::Paused;
use ollama_coordinator_common::protocol::runtime::{RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::system::SystemInfo;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::secret::SecretHash;

use super::lease::Terms;
use crate::storage::agent::{StoredAgent, StoredPause};
use crate::storage::writer::CommitError;

/// A validated registration.
#[derive(Debug, Clone, PartialEq)]
pub struct NewAgent {
    /// The id the agent made for itself.
    pub id: Option<AgentId>,
    /// The hash of the secret it presented.
    pub secret: Option<SecretHash>,
    /// This run of its process.
    pub session: Option<SessionId>,
    /// The last epoch it was granted.
    pub epoch: Option<u64>,
    /// The id it had before.
    pub cloned_from: Option<AgentId>,
    /// What to call its machine.
    pub machine_name: String,
    /// Where its runtime is.
    pub ip_address: IpAddr,
    /// The runtime's port.
    pub port: u16,
    /// How its runtime is reached.
    pub link: LinkKind,
    /// The runtime's version, when no report came with it.
    pub ollama_version: Option<String>,
    /// The runtime as the agent sees it.
    pub runtime: Option<RuntimeReport>,
    /// Its machine.
    pub system_info: Option<SystemInfo>,
    /// The pause that its owner made.
    pub paused: Option<Paused>,
    /// The agent's version.
    pub agent_version: Option<String>,
}

/// What a registration got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// The agent's id.
    pub id: AgentId,
    /// Its epoch.
    pub epoch: u64,
    /// Its cadence.
    pub terms: Terms,
    /// Whether it was unknown before.
    pub is_new: bool,
}

/// Why a registration was refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The id or endpoint belongs to an agent with another secret.
    #[error("the secret that belongs to this agent was not presented")]
    WrongSecret,
    /// Another live process uses the id.
    #[error("another live process uses this id")]
    DuplicateIdentity,
    /// The registry is full.
    #[error("the registry holds {0} agents, the most it may")]
    Full(usize),
    /// It could not be made durable.
    #[error("failed to make the registration durable")]
    NotDurable(#[source] CommitError),
}

impl NewAgent {
    /// Returns where the coordinator is to dial the runtime, if it is.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let is_dialled = self.link == LinkKind::Direct;
        is_dialled.then(|| SocketAddr::new(self.ip_address, self.port))
    }

    /// Returns whether this registration proves that it may act for `known`.
    pub(super) fn may_act_for(&self, known: &StoredAgent) -> bool {
        match known.secret_hash {
            Some(expected) => self.secret == Some(expected),
            None => true,
        }
    }

    /// Returns the record that this registration leads to.
    pub(super) fn record(
        &self,
        id: AgentId,
        known: Option<&StoredAgent>,
        wall: DateTime<Utc>,
    ) -> Arc<StoredAgent> {
        let mut record = known.cloned().unwrap_or_else(|| {
            let endpoint = (self.ip_address, self.port);
            let mut blank = StoredAgent::new(id, self.machine_name.clone(), endpoint, wall);
            blank.runtime.status = RuntimeStatus::Running;
            blank
        });
        if self.endpoint() != record.endpoint() {
            record.verified = false;
        }
        record.epoch = self.next_epoch(known);
        record.machine_name.clone_from(&self.machine_name);
        record.ip_address = self.ip_address;
        record.port = self.port;
        record.link = self.link;
        record.secret_hash = self.secret.or(record.secret_hash);
        record.session = self.session.or(record.session);
        record.cloned_from = self.cloned_from.or(record.cloned_from);
        record.paused = self.paused.map(|paused| StoredPause::new(paused, wall));
        record.left_at = None;
        record.last_seen = wall;
        if self.system_info.is_some() {
            record.system_info.clone_from(&self.system_info);
        }
        if self.agent_version.is_some() {
            record.agent_version.clone_from(&self.agent_version);
        }
        match (&self.runtime, &self.ollama_version) {
            // A clone has no spare capacity, `clone_from` may.
            (Some(report), _) => record.runtime = report.clone(),
            (None, Some(version)) => record.runtime.version = Some(version.clone()),
            (None, None) => {}
        }
        Arc::new(record)
    }

    fn next_epoch(&self, known: Option<&StoredAgent>) -> u64 {
        let presented = self.epoch.unwrap_or(0);
        let Some(known) = known else {
            return presented.saturating_add(1);
        };
        let same_session = self.session.is_none() || self.session == known.session;
        if same_session && presented <= known.epoch {
            known.epoch
        } else {
            known.epoch.max(presented).saturating_add(1)
        }
    }
}

/// Returns whether going from `known` to `next` needs no write.
///
/// The runtime report and the time last seen are saved now and then, like those of heartbeats.
pub(super) fn is_unchanged(known: &StoredAgent, next: &StoredAgent) -> bool {
    let StoredAgent {
        id,
        machine_name,
        display_name,
        ip_address,
        port,
        link,
        runtime: _,
        secret_hash,
        session,
        epoch,
        cloned_from,
        draining,
        paused,
        capacity,
        labels,
        notes,
        system_info,
        agent_version,
        registered_at,
        last_seen: _,
        left_at,
        verified: _,
        extra,
    } = known;
    *id == next.id
        && *machine_name == next.machine_name
        && *display_name == next.display_name
        && *ip_address == next.ip_address
        && *port == next.port
        && *link == next.link
        && *secret_hash == next.secret_hash
        && *session == next.session
        && *epoch == next.epoch
        && *cloned_from == next.cloned_from
        && *draining == next.draining
        && paused.is_some() == next.paused.is_some()
        && *capacity == next.capacity
        && *labels == next.labels
        && *notes == next.notes
        && *system_info == next.system_info
        && *agent_version == next.agent_version
        && *registered_at == next.registered_at
        && *left_at == next.left_at
        && *extra == next.extra
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_agent() -> NewAgent {
        NewAgent {
            id: Some(AgentId::from_u128(1)),
            secret: None,
            session: Some(SessionId::from_u128(1)),
            epoch: None,
            cloned_from: None,
            machine_name: "gpu-1".to_owned(),
            ip_address: [127, 0, 0, 1].into(),
            port: 11434,
            link: LinkKind::Direct,
            ollama_version: None,
            runtime: None,
            system_info: None,
            paused: None,
            agent_version: None,
        }
    }

    #[test]
    fn epoch_grows_with_each_session_and_never_goes_back() {
        let id = AgentId::from_u128(1);
        let first = new_agent().record(id, None, Utc::now());
        let again = new_agent().record(id, Some(&first), Utc::now());
        let restarted = NewAgent {
            session: Some(SessionId::from_u128(2)),
            ..new_agent()
        };
        let restarted = restarted.record(id, Some(&again), Utc::now());
        let after_backup = NewAgent {
            epoch: Some(9),
            ..new_agent()
        };
        let after_backup = after_backup.record(id, Some(&first), Utc::now());

        assert_eq!(
            [
                first.epoch,
                again.epoch,
                restarted.epoch,
                after_backup.epoch
            ],
            [1, 1, 2, 10],
        );
    }

    #[test]
    fn same_registration_again_needs_no_write() {
        let id = AgentId::from_u128(1);
        let first = new_agent().record(id, None, Utc::now());
        let again = new_agent().record(id, Some(&first), Utc::now());
        let renamed = NewAgent {
            machine_name: "gpu-2".to_owned(),
            ..new_agent()
        };

        assert!(is_unchanged(&first, &again));
        assert!(!is_unchanged(
            &first,
            &renamed.record(id, Some(&first), Utc::now())
        ));
    }

    #[test]
    fn new_address_must_be_verified_again() {
        let id = AgentId::from_u128(1);
        let mut known = StoredAgent::clone(&new_agent().record(id, None, Utc::now()));
        known.verified = true;
        let moved = NewAgent {
            port: 11435,
            ..new_agent()
        };

        assert!(new_agent().record(id, Some(&known), Utc::now()).verified);
        assert!(!moved.record(id, Some(&known), Utc::now()).verified);
    }
}
