//! The persisted shape of an agent. Field names are the file format: renaming one loses data.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use chrono::{DateTime, TimeDelta, Utc};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::pause::Paused;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::system::SystemInfo;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::secret::SecretHash;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How far apart two messages may see the end of one pause.
const SAME_END: TimeDelta = TimeDelta::seconds(5);

/// What is known of an agent across restarts; never whether it is alive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredAgent {
    /// Its id.
    pub id: AgentId,
    /// What the machine calls itself.
    pub machine_name: String,
    /// What the operator calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Where its runtime is reached.
    pub ip_address: IpAddr,
    /// The runtime's port.
    pub port: u16,
    /// How its runtime is reached.
    #[serde(default)]
    pub link: LinkKind,
    /// The runtime as last reported.
    #[serde(default)]
    pub runtime: RuntimeReport,
    /// What proves its identity; absent for agents that registered without a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_hash: Option<SecretHash>,
    /// The process that registered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
    /// Grows with each accepted session.
    #[serde(default)]
    pub epoch: u64,
    /// The id it had before it learnt that another process uses that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<AgentId>,
    /// Whether the operator is emptying it.
    #[serde(default)]
    pub draining: bool,
    /// The pause that its owner made on the machine, as last heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<StoredPause>,
    /// How many requests it is given at once, when the operator says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<NonZeroU32>,
    /// The operator's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The operator's notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<String>,
    /// Its machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_info: Option<SystemInfo>,
    /// The agent's own version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// When it first registered.
    pub registered_at: DateTime<Utc>,
    /// When it was last heard of, as far as that was saved.
    pub last_seen: DateTime<Utc>,
    /// When it said goodbye, if that was the last thing it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_at: Option<DateTime<Utc>>,
    /// Whether a runtime has answered at its address.
    #[serde(default)]
    pub verified: bool,
    /// Fields that a newer coordinator wrote; kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// A pause that a machine's owner made there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPause {
    /// When it ends by itself, if it does; for display, the agent says when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

impl StoredPause {
    /// Makes it of what an agent says `now`.
    pub fn new(paused: Paused, now: DateTime<Utc>) -> Self {
        let remaining = paused.remaining_ms.and_then(|ms| {
            let ms = i64::try_from(ms).ok()?;
            TimeDelta::try_milliseconds(ms)
        });
        Self {
            until: remaining.and_then(|remaining| now.checked_add_signed(remaining)),
        }
    }

    /// Returns whether it is the same pause, as far as an agent's messages take their time.
    pub fn is_same_as(self, other: Self) -> bool {
        match (self.until, other.until) {
            (Some(one), Some(another)) => (one - another).abs() <= SAME_END,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

impl StoredAgent {
    /// Returns the operator's name for the agent, else the machine's.
    pub fn name(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.machine_name)
    }

    /// Returns where the coordinator dials its runtime, if it does.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        let is_dialled = self.link == LinkKind::Direct;
        is_dialled.then(|| SocketAddr::new(self.ip_address, self.port))
    }

    /// Returns how many requests it serves at once: the operator's figure, else the runtime's.
    pub fn known_capacity(&self) -> Option<NonZeroU32> {
        self.capacity.or(self.runtime.slots)
    }

    /// Makes a record of which only the necessary is known.
    pub fn new(
        id: AgentId,
        machine_name: impl Into<String>,
        (ip_address, port): (IpAddr, u16),
        registered_at: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            machine_name: machine_name.into(),
            display_name: None,
            ip_address,
            port,
            link: LinkKind::Direct,
            runtime: RuntimeReport::default(),
            secret_hash: None,
            session: None,
            epoch: 0,
            cloned_from: None,
            draining: false,
            paused: None,
            capacity: None,
            labels: BTreeMap::new(),
            notes: None,
            system_info: None,
            agent_version: None,
            registered_at,
            last_seen: registered_at,
            left_at: None,
            verified: false,
            extra: Map::new(),
        }
    }
}
