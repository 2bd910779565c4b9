//! Reads the registry of the earlier `llm-router`: a bare JSON array, in whichever of its versions.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::register::DEFAULT_RUNTIME_PORT;
use ollama_coordinator_common::protocol::runtime::Model;
use ollama_coordinator_common::protocol::system::{Gpu, SystemInfo};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::storage::agent::StoredAgent;

/// What was understood of such a file.
#[derive(Debug)]
pub(super) struct LegacyRegistry {
    /// Sorted by id, each id once.
    pub(super) agents: Vec<StoredAgent>,
    /// Entries that made no sense.
    pub(super) skipped: usize,
}

/// Returns the registry in `bytes`, or nothing when they are something else.
pub(super) fn parse(bytes: &[u8]) -> Option<LegacyRegistry> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace())?;
    if *first != b'[' {
        return None;
    }
    let entries: Vec<Value> = serde_json::from_slice(bytes).ok()?;
    let now = Utc::now();
    let mut agents = BTreeMap::<AgentId, StoredAgent>::new();
    let mut skipped = 0;
    for entry in entries {
        match entry.as_object().and_then(|entry| agent(entry, now)) {
            Some(agent) => {
                let known = agents.entry(agent.id).or_insert_with(|| agent.clone());
                if agent.last_seen > known.last_seen {
                    *known = agent;
                }
            }
            None => skipped += 1,
        }
    }
    Some(LegacyRegistry {
        agents: agents.into_values().collect(),
        skipped,
    })
}

/// Only id, name and address are indispensable; whatever else is odd is left out.
fn agent(entry: &Map<String, Value>, now: DateTime<Utc>) -> Option<StoredAgent> {
    let id: AgentId = field(entry, &["id"])?;
    let machine_name: String = field(entry, &["machine_name", "hostname"])?;
    let ip_address: IpAddr = field(entry, &["ip_address"])?;
    let port = field(entry, &["ollama_port", "port"])
        .filter(|port| *port != 0)
        .unwrap_or(DEFAULT_RUNTIME_PORT);
    let last_seen: Option<DateTime<Utc>> = field(entry, &["last_seen", "last_heartbeat"]);
    let registered_at = field(entry, &["registered_at"])
        .or(last_seen)
        .unwrap_or(now);

    let mut agent = StoredAgent::new(id, machine_name, (ip_address, port), registered_at);
    agent.last_seen = last_seen.unwrap_or(registered_at);
    agent.display_name = field(entry, &["custom_name", "display_name"]);
    agent.notes = field(entry, &["notes"]);
    agent.agent_version = field(entry, &["agent_version"]);
    agent.runtime.version = field(entry, &["ollama_version"]);
    agent.runtime.models = field::<Vec<String>>(entry, &["loaded_models"])
        .unwrap_or_default()
        .into_iter()
        .map(Model::named)
        .collect();
    agent.system_info = system_info(entry);
    Some(agent)
}

fn system_info(entry: &Map<String, Value>) -> Option<SystemInfo> {
    #[derive(Deserialize)]
    struct Device {
        #[serde(alias = "name")]
        model: String,
        #[serde(default = "one")]
        count: usize,
        #[serde(default, alias = "memory_bytes")]
        memory: Option<u64>,
    }
    fn one() -> usize {
        1
    }
    const MOST_GPUS: usize = 64;

    let mut info: SystemInfo = field(entry, &["system_info"]).unwrap_or_default();
    if let Some(devices) = field::<Vec<Device>>(entry, &["gpu_devices"])
        && info.gpus.is_none()
        && !devices.is_empty()
    {
        let gpus = devices.into_iter().flat_map(|device| {
            let gpu = Gpu {
                name: device.model,
                memory_bytes: device.memory,
                driver: None,
            };
            std::iter::repeat_n(gpu, device.count.min(MOST_GPUS))
        });
        info.gpus = Some(gpus.collect());
    }
    (info != SystemInfo::default()).then_some(info)
}

/// Returns the first of `names` that is there in the expected shape.
fn field<T: DeserializeOwned>(entry: &Map<String, Value>, names: &[&str]) -> Option<T> {
    names
        .iter()
        .filter_map(|name| entry.get(*name))
        .find_map(|value| serde_json::from_value(value.clone()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-0000-0000-000000000007";

    #[test]
    fn entries_of_every_version_are_understood() {
        let text = format!(
            r#"[
            {{"id": "{ID}", "hostname": "old", "ip_address": "192.168.1.5", "port": 11435,
              "ollama_version": "0.1.0", "status": "Offline",
              "last_heartbeat": "2025-10-30T01:02:03Z", "registered_at": "2025-10-29T00:00:00Z"}},
            {{"id": "00000000-0000-0000-0000-000000000001", "machine_name": "new",
              "ip_address": "10.0.0.9", "status": "online", "custom_name": "The big one",
              "loaded_models": ["llama3:8b"],
              "gpu_devices": [{{"model": "RTX 4090", "count": 2, "memory": 25769803776}}],
              "last_seen": "2025-11-01T00:00:00Z", "tags": ["x"], "notes": null}}
        ]"#
        );

        let registry = parse(text.as_bytes()).unwrap();

        let [new, old] = registry.agents.as_slice() else {
            panic!("two agents, sorted by id, not {:?}", registry.agents);
        };
        assert_eq!(registry.skipped, 0);
        assert_eq!(old.id, ID.parse().unwrap());
        assert_eq!((old.machine_name.as_str(), old.port), ("old", 11435));
        assert_eq!(old.runtime.version.as_deref(), Some("0.1.0"));
        assert_eq!(old.last_seen.to_rfc3339(), "2025-10-30T01:02:03+00:00");
        assert_eq!(
            (new.machine_name.as_str(), new.port),
            ("new", DEFAULT_RUNTIME_PORT)
        );
        assert_eq!(new.display_name.as_deref(), Some("The big one"));
        assert_eq!(new.registered_at, new.last_seen);
        assert_eq!(new.runtime.models, [Model::named("llama3:8b")]);
        let gpus = new
            .system_info
            .as_ref()
            .and_then(|info| info.gpus.as_deref());
        assert_eq!(gpus.unwrap_or_default().len(), 2);
        assert!(!new.verified && new.secret_hash.is_none());
    }

    #[test]
    fn senseless_entries_are_counted_and_the_newest_of_two_is_taken() {
        let text = format!(
            r#"[7, {{"id": "{ID}"}}, {{"id": "x", "hostname": "a", "ip_address": "10.0.0.1"}},
            {{"id": "{ID}", "hostname": "newer", "ip_address": "10.0.0.1", "port": 0,
              "last_heartbeat": "2025-02-01T00:00:00Z"}},
            {{"id": "{ID}", "hostname": "older", "ip_address": "10.0.0.1",
              "last_heartbeat": "2025-01-01T00:00:00Z"}}]"#
        );

        let registry = parse(text.as_bytes()).unwrap();

        assert_eq!(registry.skipped, 3);
        assert_eq!(registry.agents.len(), 1);
        assert_eq!(registry.agents[0].machine_name, "newer");
        assert_eq!(registry.agents[0].port, DEFAULT_RUNTIME_PORT);
    }

    #[test]
    fn anything_but_an_array_is_something_else() {
        for text in ["", "  ", "{}", "[", "[}", "null"] {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
    }
}
