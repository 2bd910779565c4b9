//! What can be looked at. Names stay as they are: scripts and the documents use them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that `doctor` looks at; later ones depend on earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckId {
    /// The values that were given, and where they come from.
    Settings,
    /// The directory in which the agent keeps its identity.
    StateDir,
    /// The agent's id and secret.
    Identity,
    /// Whether an agent runs here.
    Agent,
    /// Whether it starts by itself.
    Service,
    /// The directory in which the coordinator keeps its registry.
    DataDir,
    /// The registry's file.
    Registry,
    /// Room on the disk.
    Disk,
    /// The HTTP proxy on the way to the coordinator.
    Proxy,
    /// The coordinator's host name.
    Name,
    /// The connection to the coordinator's port.
    Tcp,
    /// Whether HTTP is spoken there.
    Http,
    /// Whether it is a coordinator.
    Coordinator,
    /// Whether agent and coordinator understand each other.
    Version,
    /// This machine's clock against the coordinator's.
    Clock,
    /// Whether the identity is used somewhere else, too.
    DuplicateIdentity,
    /// The connection over which the requests come.
    Tunnel,
    /// The model runtime.
    Runtime,
    /// The runtime's models.
    Models,
    /// Whether the coordinator sends requests.
    Routable,
    /// Graphics cards and their driver.
    Gpu,
    /// What other machines can reach.
    Addresses,
    /// The agents of the coordinator.
    Agents,
    /// Whether one agent proves that it is alive.
    Heartbeats,
    /// Whether the coordinator reaches one agent's runtime.
    Reach,
    /// What speaks against sending one agent requests, though it is reached.
    Requests,
}

impl CheckId {
    /// All there are, in order.
    pub const ALL: [Self; 26] = [
        Self::Settings,
        Self::StateDir,
        Self::Identity,
        Self::Agent,
        Self::Service,
        Self::DataDir,
        Self::Registry,
        Self::Disk,
        Self::Proxy,
        Self::Name,
        Self::Tcp,
        Self::Http,
        Self::Coordinator,
        Self::Version,
        Self::Clock,
        Self::DuplicateIdentity,
        Self::Tunnel,
        Self::Runtime,
        Self::Models,
        Self::Routable,
        Self::Gpu,
        Self::Addresses,
        Self::Agents,
        Self::Heartbeats,
        Self::Reach,
        Self::Requests,
    ];

    /// Returns its name, as in JSON and in the documents.
    pub fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::StateDir => "state_dir",
            Self::Identity => "identity",
            Self::Agent => "agent",
            Self::Service => "service",
            Self::Proxy => "proxy",
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::Http => "http",
            Self::Coordinator => "coordinator",
            Self::Version => "version",
            Self::Clock => "clock",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::Tunnel => "tunnel",
            Self::Routable => "routable",
            Self::Runtime => "runtime",
            Self::Models => "models",
            Self::Gpu => "gpu",
            Self::DataDir => "data_dir",
            Self::Registry => "registry",
            Self::Disk => "disk",
            Self::Addresses => "addresses",
            Self::Agents => "agents",
            Self::Heartbeats => "heartbeats",
            Self::Reach => "reach",
            Self::Requests => "requests",
        }
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_everywhere_and_each_is_explained_in_the_documents() {
        let documents = include_str!("../../../docs/operations.md");

        for id in CheckId::ALL {
            assert_eq!(serde_json::to_value(id).unwrap(), id.name());
            let anchor = format!("<a id=\"{}\"></a>`{}`", id.name(), id.name());
            assert!(documents.contains(&anchor), "{anchor}");
        }
    }
}
