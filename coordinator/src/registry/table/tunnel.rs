//! The connections that agents dial to carry requests: whose is the one that counts, and what its
//! end means.

use std::time::Duration;

use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::UnroutableReason;
use ollama_coordinator_common::secret::SecretHash;
use tokio::time::Instant;

use super::super::agent::{Moment, Tunnel, TunnelId};
use super::super::snapshot::model_key;
use super::super::transition::Transition;
use super::renewal::News;
use super::{AgentTable, RenewError};

/// How long an agent whose tunnel is lost may be silent until it is offline.
const RECONNECT_WINDOW: Duration = Duration::from_secs(5);

/// Why a tunnel was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TunnelError {
    /// The caller is not, or not yet, the one who may act for the agent.
    #[error(transparent)]
    Unproven(#[from] RenewError),
    /// The agent has registered an address to be dialled.
    #[error("the agent registered an address and no tunnel")]
    Direct,
}

impl AgentTable {
    /// Returns whether `session` of an agent may open a tunnel.
    pub fn may_open_tunnel(
        &self,
        id: AgentId,
        secret: Option<SecretHash>,
        session: SessionId,
    ) -> Result<(), TunnelError> {
        let record = self.records.get(&id).ok_or(RenewError::UnknownAgent)?;
        record.prove(secret)?;
        if record.refused_session == Some(session) {
            return Err(RenewError::DuplicateIdentity.into());
        }
        if record.stored.session != Some(session) {
            return Err(RenewError::UnknownAgent.into());
        }
        match record.stored.link {
            LinkKind::Tunnel => Ok(()),
            LinkKind::Direct => Err(TunnelError::Direct),
        }
    }

    /// Takes a tunnel into use, which is a sign of life, and returns the one that it replaces.
    pub fn open_tunnel(
        &mut self,
        id: AgentId,
        (tunnel, session): (TunnelId, SessionId),
        now: Moment,
    ) -> Option<TunnelId> {
        // One that was forgotten, or has another process meanwhile, has no use for it.
        let record = self.records.get_mut(&id);
        let Some(record) = record.filter(|record| record.stored.session == Some(session)) else {
            return Some(tunnel);
        };
        let was = (record.unroutable(), record.trust());
        let has_left = record.stored.left_at.is_some();
        let replaced = record.tunnel.replace(Tunnel {
            id: tunnel,
            session,
        });
        if !has_left {
            self.renew_lease(id, now.mono);
        }
        self.settle_renewal(id, was, News::Nothing, now);
        self.route(id);
        replaced.map(|tunnel| tunnel.id)
    }

    /// Takes a tunnel out of use that has ended: an agent that is not heard of soon is offline.
    pub fn close_tunnel(&mut self, id: AgentId, tunnel: TunnelId, now: Moment) {
        let record = self.records.get_mut(&id);
        let is_in_use = |record: &&mut super::AgentRecord| {
            record.tunnel.is_some_and(|in_use| in_use.id == tunnel)
        };
        let Some(record) = record.filter(is_in_use) else {
            return;
        };
        let was = record.unroutable();
        record.tunnel = None;
        record.awaited_since = Some(now.mono);
        let is_same = was == record.unroutable();
        if let Some(mut lease) = record.lease {
            lease.shorten(now.mono + RECONNECT_WINDOW);
            self.set_lease(id, Some(lease));
        }
        if !is_same {
            self.note(id, now, Transition::RoutabilityChanged);
        }
    }

    /// Returns whether an agent that has a model may be back at once: its tunnel was just lost, or is
    /// not there yet, or it has just left, as when it is restarted.
    pub fn awaits(&self, model: &str, now: Instant) -> bool {
        let model = model_key(model);
        self.records.values().any(|record| {
            let since = record.awaited_since;
            let is_awaited = since.is_some_and(|since| now < since + RECONNECT_WINDOW);
            let has_left = record.stored.left_at.is_some();
            let is_gone = match record.unroutable() {
                Some(UnroutableReason::NoTunnel) => true,
                Some(UnroutableReason::Offline) => has_left,
                Some(_) | None => false,
            };
            is_awaited && is_gone && record.has_model(&model)
        })
    }

    /// Returns whether an agent that has a model gets no requests because its owner paused it.
    pub fn is_paused(&self, model: &str) -> bool {
        let model = model_key(model);
        self.records.values().any(|record| {
            record.unroutable() == Some(UnroutableReason::Paused) && record.has_model(&model)
        })
    }

    /// Returns the tunnel of an agent.
    pub fn tunnel_of(&self, id: AgentId) -> Option<TunnelId> {
        let record = self.records.get(&id)?;
        record.tunnel.map(|tunnel| tunnel.id)
    }
}
