//! Who this agent is: an id and a secret, made once, kept in `agent.json`, never overwritten
//! while they can be read.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ollama_coordinator_common::atomic_file;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::secret::AgentSecret;
use serde::{Deserialize, Serialize};

use crate::platform;

const FILE: &str = "agent.json";

/// The agent's identity. Its `Debug` does not show the secret.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The agent's id.
    pub agent_id: AgentId,
    /// Proves the id to the coordinator.
    pub secret: AgentSecret,
    /// The id before, when another process turned out to use it.
    pub cloned_from: Option<AgentId>,
    /// When the identity was made, by this machine's clock.
    pub created_at: SystemTime,
}

impl Identity {
    /// Reads the identity in `state_dir`, or makes and keeps a new one.
    ///
    /// An unreadable file is set aside as `agent.json.corrupt-<seconds>`, as evidence.
    ///
    /// # Errors
    /// The directory or file cannot be read or written.
    pub fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        platform::create_private_dir(state_dir)
            .map_err(|source| IdentityError::new("create", state_dir, source))?;
        let path = state_dir.join(FILE);
        let identity = match std::fs::read(&path) {
            Ok(bytes) => match Self::decode(&bytes) {
                Some(identity) => identity,
                None => Self::replace_corrupt(state_dir, &path)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::generate(None);
                identity.save(state_dir)?;
                tracing::info!(agent.id = %identity.agent_id, "Made a new identity");
                identity
            }
            Err(source) => return Err(IdentityError::new("read", &path, source)),
        };
        // A copy from a backup may have come back readable for everybody.
        platform::make_private(&path)
            .map_err(|source| IdentityError::new("protect", &path, source))?;
        Ok(identity)
    }

    /// Reads the identity in `state_dir`, if there is one, and changes nothing.
    ///
    /// # Errors
    /// The file cannot be read, or makes no sense.
    pub fn read(state_dir: &Path) -> Result<Option<Self>, IdentityError> {
        let path = state_dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => match Self::decode(&bytes) {
                Some(identity) => Ok(Some(identity)),
                None => Err(IdentityError::new(
                    "understand",
                    &path,
                    io::ErrorKind::InvalidData.into(),
                )),
            },
            Err(error) if is_missing(&error) => Ok(None),
            Err(source) => Err(IdentityError::new("read", &path, source)),
        }
    }

    /// Makes and keeps the identity that follows `self`, which another live process uses too.
    ///
    /// # Errors
    /// Returns the identity all the same when it cannot be kept, with the reason.
    pub fn mint_replacement(&self, state_dir: &Path) -> (Self, Result<(), IdentityError>) {
        let replacement = Self::generate(Some(self.agent_id));
        let kept = replacement.save(state_dir);
        (replacement, kept)
    }

    fn generate(cloned_from: Option<AgentId>) -> Self {
        Self {
            agent_id: AgentId::new(),
            secret: AgentSecret::generate(),
            cloned_from,
            created_at: SystemTime::now(),
        }
    }

    fn replace_corrupt(state_dir: &Path, path: &Path) -> Result<Self, IdentityError> {
        let evidence = set_aside(path)?;
        let identity = Self::generate(None);
        identity.save(state_dir)?;
        tracing::warn!(
            agent.id = %identity.agent_id,
            evidence = %evidence.display(),
            "The identity file was unreadable and is kept as evidence; this machine joins as a new \
             agent"
        );
        Ok(identity)
    }

    fn save(&self, state_dir: &Path) -> Result<(), IdentityError> {
        let path = state_dir.join(FILE);
        let stored = StoredIdentity {
            agent_id: self.agent_id,
            secret: self.secret.expose().to_owned(),
            cloned_from: self.cloned_from,
            created_at: humantime::format_rfc3339_seconds(self.created_at).to_string(),
        };
        let mut json = serde_json::to_vec_pretty(&stored).expect("plain fields become JSON");
        json.push(b'\n');
        atomic_file::write(&path, &json)
            .map_err(|source| IdentityError::new("write", &path, source))
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: StoredIdentity = serde_json::from_slice(bytes).ok()?;
        Some(Self {
            agent_id: stored.agent_id,
            secret: stored.secret.parse().ok()?,
            cloned_from: stored.cloned_from,
            created_at: humantime::parse_rfc3339_weak(&stored.created_at).ok()?,
        })
    }
}

/// The identity's file could not be used.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} {}", .path.display())]
pub struct IdentityError {
    verb: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl IdentityError {
    fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            verb,
            path: path.to_owned(),
            source,
        }
    }
}

/// The file's contents; deliberately without `Debug`.
#[derive(Serialize, Deserialize)]
struct StoredIdentity {
    agent_id: AgentId,
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cloned_from: Option<AgentId>,
    created_at: String,
}

fn is_missing(error: &io::Error) -> bool {
    [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind())
}

/// Renames `path` to a name that says when, and that was not taken in the last minute.
fn set_aside(path: &Path) -> Result<PathBuf, IdentityError> {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since_epoch.unwrap_or_default().as_secs();
    let evidence = (seconds..seconds + 60)
        .map(|suffix| path.with_file_name(format!("{FILE}.corrupt-{suffix}")))
        .find(|evidence| !evidence.exists())
        .ok_or_else(|| {
            let source = io::ErrorKind::AlreadyExists.into();
            IdentityError::new("find a free name to set aside", path, source)
        })?;
    std::fs::rename(path, &evidence)
        .map_err(|source| IdentityError::new("set aside", path, source))?;
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_file_is_read_as_it_was_or_kept_beside_a_new_identity(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let state_dir = tempfile::tempdir().unwrap();
            let first = Identity::open(state_dir.path()).unwrap();
            let path = state_dir.path().join(FILE);
            let mut damaged = std::fs::read(&path).unwrap();
            for (at, byte) in edits {
                *at.get_mut(&mut damaged) = byte;
            }
            damaged.truncate(cut.index(damaged.len()) + 1);
            std::fs::write(&path, &damaged).unwrap();

            let found = Identity::open(state_dir.path()).unwrap();

            let names = std::fs::read_dir(state_dir.path()).unwrap();
            let paths = names.map(|entry| entry.unwrap().path());
            let evidence: Vec<_> = paths.filter(|other| *other != path).collect();
            match evidence.as_slice() {
                [] => prop_assert_eq!(std::fs::read(&path).unwrap(), damaged),
                [evidence] => {
                    prop_assert_ne!(found.agent_id, first.agent_id);
                    prop_assert_eq!(std::fs::read(evidence).unwrap(), damaged);
                }
                more => prop_assert!(false, "{:?}", more),
            }
            let again = Identity::open(state_dir.path()).unwrap();
            prop_assert_eq!(again.agent_id, found.agent_id);
        }
    }
}
