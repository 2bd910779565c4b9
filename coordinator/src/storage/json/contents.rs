//! The agents in one file and the journals after it: each record is looked at alone, so that a
//! bad one costs only itself.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use serde_json::value::RawValue;

use super::document::{self, Document, Extra};
use super::evidence::Rejected;
use super::files::WholeFile;
use super::journal::{self, Frame};
use super::legacy::LegacyRegistry;
use crate::storage::agent::StoredAgent;

/// What a store goes on from.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The file itself, without what followed it.
    pub(super) file: WholeFile,
    /// Sorted by id.
    pub(super) agents: Vec<StoredAgent>,
    pub(super) records: BTreeMap<AgentId, Box<str>>,
    pub(super) generation: u64,
    pub(super) saved_at: Option<DateTime<Utc>>,
    pub(super) extra: Extra,
    pub(super) rejected: Vec<Rejected>,
    /// Set when the file is an earlier product's: how many of its entries made no sense.
    pub(super) skipped_by_import: Option<usize>,
}

impl Contents {
    pub(super) fn from_document(document: Document<'_>, bytes: usize) -> Self {
        let mut accepted = BTreeMap::<AgentId, (StoredAgent, &RawValue)>::new();
        let mut rejected = Vec::new();
        let mut reject = |record: &RawValue, reason: String| {
            let record = record.to_owned();
            rejected.push(Rejected { reason, record });
        };
        for record in document.records {
            let agent = match read(record) {
                Ok(agent) => agent,
                Err(reason) => {
                    reject(record, reason);
                    continue;
                }
            };
            match accepted.entry(agent.id) {
                Entry::Vacant(free) => {
                    free.insert((agent, record));
                }
                Entry::Occupied(mut taken) => {
                    let newer = is_newer(&agent, &taken.get().0);
                    let loser = if newer {
                        taken.insert((agent, record)).1
                    } else {
                        record
                    };
                    reject(
                        loser,
                        "another record has the same id and is newer".to_owned(),
                    );
                }
            }
        }

        // Under a right checksum a record is our own text and can be written again as it is.
        let text = |agent: &StoredAgent, record: &RawValue| {
            let rewritten = document
                .checksum
                .is_none()
                .then(|| document::record(agent).ok());
            rewritten.flatten().unwrap_or_else(|| record.get().into())
        };
        let records = accepted
            .iter()
            .map(|(id, (agent, record))| (*id, text(agent, record)))
            .collect();
        Self {
            file: WholeFile {
                generation: document.generation,
                checksum: document.checksum,
                bytes: bytes as u64,
            },
            records,
            agents: accepted.into_values().map(|(agent, _)| agent).collect(),
            generation: document.generation,
            saved_at: document.saved_at,
            extra: document.extra,
            rejected,
            skipped_by_import: None,
        }
    }

    pub(super) fn from_legacy(registry: LegacyRegistry) -> Self {
        let records = registry
            .agents
            .iter()
            .filter_map(|agent| Some((agent.id, document::record(agent).ok()?)))
            .collect();
        Self {
            agents: registry.agents,
            records,
            skipped_by_import: Some(registry.skipped),
            ..Self::default()
        }
    }

    /// Applies the batches in order; what they say of an agent replaces what was known.
    pub(super) fn apply(&mut self, frames: Vec<Frame<'_>>) {
        let agents = mem::take(&mut self.agents).into_iter();
        let mut agents: BTreeMap<_, _> = agents.map(|agent| (agent.id, agent)).collect();
        for frame in frames {
            for change in frame.changes {
                match change {
                    journal::Entry::Remove(id) => {
                        agents.remove(&id);
                        self.records.remove(&id);
                    }
                    journal::Entry::Put(record) => match read_with_text(record) {
                        Ok((agent, text)) => {
                            self.records.insert(agent.id, text);
                            agents.insert(agent.id, agent);
                        }
                        Err(reason) => {
                            let record = record.to_owned();
                            self.rejected.push(Rejected { reason, record });
                        }
                    },
                }
            }
            self.generation = frame.generation;
            self.saved_at = Some(frame.saved_at);
        }
        self.agents = agents.into_values().collect();
    }
}

fn read_with_text(record: &RawValue) -> Result<(StoredAgent, Box<str>), String> {
    let agent = read(record)?;
    let text = document::record(&agent).map_err(|error| error.to_string())?;
    Ok((agent, text))
}

fn read(record: &RawValue) -> Result<StoredAgent, String> {
    let agent: StoredAgent =
        serde_json::from_str(record.get()).map_err(|error| error.to_string())?;
    if agent.port == 0 {
        return Err("port is 0".to_owned());
    }
    Ok(agent)
}

fn is_newer(agent: &StoredAgent, other: &StoredAgent) -> bool {
    (agent.epoch, agent.last_seen) > (other.epoch, other.last_seen)
}
