//! Immutable copies of agents, cheap to take under the lock and to turn into JSON outside it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::runtime::{LoadedModel, RuntimeKind, RuntimeStatus};
use ollama_coordinator_common::protocol::system::{Metrics, SystemInfo};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentWarning, UnroutableReason};
use serde::{Serialize, Serializer};

use super::agent::Link;
use crate::storage::agent::StoredAgent;

/// One agent at one instant. Serialises as the agent document.
#[derive(Debug, Clone)]
pub struct AgentSnapshot {
    /// Its durable record.
    pub stored: Arc<StoredAgent>,
    /// How its runtime was reached.
    pub link: Link,
    /// Whether its lease ran.
    pub status: AgentStatus,
    /// Why it got no requests; `None`: it was routable.
    pub reason: Option<UnroutableReason>,
    /// What was unusual about it, though it worked.
    pub warning: Option<AgentWarning>,
    /// Whether it was being emptied.
    pub draining: bool,
    /// When it was last heard of.
    pub last_seen: DateTime<Utc>,
    /// Its latest load figures.
    pub metrics: Option<Arc<Metrics>>,
    /// Requests it was serving.
    pub in_flight: u32,
}

impl AgentSnapshot {
    /// Returns the agent's id.
    pub fn id(&self) -> AgentId {
        self.stored.id
    }

    /// Returns the operator's name for the agent, else the machine's.
    pub fn name(&self) -> &str {
        self.stored
            .display_name
            .as_deref()
            .unwrap_or(&self.stored.machine_name)
    }

    /// Returns whether the agent lists the model, under its full name or without `:latest`.
    pub fn has_model(&self, model: &str) -> bool {
        let wanted = model_key(model);
        let models = &self.stored.runtime.models;
        models.iter().any(|known| model_key(&known.name) == wanted)
    }
}

/// Returns the model's name with its tag: a name without one means `:latest`.
fn full_model_name(model: &str) -> String {
    let last_part = model.rsplit('/').next().unwrap_or(model);
    if last_part.contains(':') {
        model.to_owned()
    } else {
        format!("{model}:latest")
    }
}

/// Returns what all names have in common that Ollama takes for one: tagged, in lower case, without
/// its own registry and namespace.
pub fn model_key(model: &str) -> Cow<'_, str> {
    let last_part = model.rsplit('/').next().unwrap_or(model);
    let is_full = last_part.contains(':') && !model.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_full {
        Cow::Borrowed(without_defaults(model))
    } else {
        let full = full_model_name(model).to_ascii_lowercase();
        Cow::Owned(without_defaults(&full).to_owned())
    }
}

/// Leaves out of a name in lower case what Ollama fills in by itself.
fn without_defaults(model: &str) -> &str {
    let schemeless = model
        .strip_prefix("https://")
        .or_else(|| model.strip_prefix("http://"));
    let model = schemeless.unwrap_or(model);
    // Before a single slash stands a namespace, never a host.
    let below = model.strip_prefix("registry.ollama.ai/");
    let model = below.filter(|rest| rest.contains('/')).unwrap_or(model);
    let below = model.strip_prefix("library/");
    below.filter(|rest| !rest.contains('/')).unwrap_or(model)
}

/// An agent without what only a page about it needs: of its models there are names and sizes.
#[derive(Debug, Clone, Copy)]
pub struct Brief<'a>(pub &'a AgentSnapshot);

impl Serialize for AgentSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.document(&*self.stored.runtime.models)
            .serialize(serializer)
    }
}

impl Serialize for Brief<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let models = self.0.stored.runtime.models.iter();
        let models = models.map(|model| BriefModel {
            name: &model.name,
            size: model.size,
        });
        let models: Vec<BriefModel<'_>> = models.collect();
        self.0.document(models).serialize(serializer)
    }
}

impl AgentSnapshot {
    fn document<M>(&self, models: M) -> Document<'_, M> {
        let stored = &*self.stored;
        Document {
            id: stored.id,
            machine_name: &stored.machine_name,
            display_name: stored.display_name.as_deref(),
            ip_address: stored.ip_address,
            port: stored.port,
            link: stored.link,
            status: self.status,
            routable: self.reason.is_none(),
            reason: self.reason,
            warning: self.warning,
            draining: self.draining,
            paused_until: stored.paused.and_then(|pause| pause.until),
            ollama_version: stored.runtime.version.as_deref(),
            runtime: DocumentRuntime {
                kind: stored.runtime.kind,
                status: stored.runtime.status,
                version: stored.runtime.version.as_deref(),
            },
            models,
            loaded_models: &stored.runtime.loaded_models,
            capacity: stored.known_capacity().map(Into::into),
            capacity_override: stored.capacity.map(Into::into),
            in_flight: self.in_flight,
            metrics: self.metrics.as_deref(),
            labels: &stored.labels,
            notes: stored.notes.as_deref(),
            system_info: stored.system_info.as_ref(),
            agent_version: stored.agent_version.as_deref(),
            epoch: stored.epoch,
            cloned_from: stored.cloned_from,
            registered_at: stored.registered_at,
            last_seen: self.last_seen,
        }
    }
}

/// `AgentView`, borrowed, so that a list of thousands copies no strings.
#[derive(Serialize)]
struct Document<'a, M> {
    id: AgentId,
    machine_name: &'a str,
    display_name: Option<&'a str>,
    ip_address: IpAddr,
    port: u16,
    link: LinkKind,
    status: AgentStatus,
    routable: bool,
    reason: Option<UnroutableReason>,
    warning: Option<AgentWarning>,
    draining: bool,
    paused_until: Option<DateTime<Utc>>,
    ollama_version: Option<&'a str>,
    runtime: DocumentRuntime<'a>,
    models: M,
    loaded_models: &'a [LoadedModel],
    capacity: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity_override: Option<u32>,
    in_flight: u32,
    metrics: Option<&'a Metrics>,
    labels: &'a BTreeMap<String, String>,
    notes: Option<&'a str>,
    system_info: Option<&'a SystemInfo>,
    agent_version: Option<&'a str>,
    epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cloned_from: Option<AgentId>,
    registered_at: DateTime<Utc>,
    last_seen: DateTime<Utc>,
}

#[derive(Serialize)]
struct BriefModel<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
}

#[derive(Serialize)]
struct DocumentRuntime<'a> {
    kind: RuntimeKind,
    status: RuntimeStatus,
    version: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("llama3.2", "llama3.2:latest")]
    #[case("llama3.2:1b", "llama3.2:1b")]
    #[case("hf.co/some/model", "hf.co/some/model:latest")]
    #[case("localhost:5000/some/model", "localhost:5000/some/model:latest")]
    fn name_without_a_tag_means_latest(#[case] model: &str, #[case] full: &str) {
        assert_eq!(full_model_name(model), full);
        assert_eq!(model_key(&model.to_uppercase()), full.to_ascii_lowercase());
        assert_eq!(model_key(full), full);
    }

    #[rstest]
    #[case("library/x")]
    #[case("registry.ollama.ai/library/x")]
    #[case("https://Registry.Ollama.ai/library/X:latest")]
    fn names_in_ollamas_own_library_are_one(#[case] model: &str) {
        assert_eq!(model_key(model), "x:latest");
        let full = full_model_name(model).to_ascii_lowercase();
        assert_eq!(model_key(&full), "x:latest");
    }

    #[rstest]
    #[case("registry.ollama.ai/me/x:1b", "me/x:1b")]
    #[case("hf.co/library/x:1b", "hf.co/library/x:1b")]
    #[case("registry.ollama.ai/x:1b", "registry.ollama.ai/x:1b")]
    #[case("me/library:1b", "me/library:1b")]
    fn names_elsewhere_are_not(#[case] model: &str, #[case] key: &str) {
        assert_eq!(model_key(model), key);
    }

    proptest! {
        #[test]
        fn names_that_differ_in_case_or_in_the_latest_tag_are_one(name in "[a-zA-Z0-9/._-]{1,30}") {
            let key = model_key(&name).into_owned();

            let key_of = |name: String| model_key(&name).into_owned();

            prop_assert_eq!(key_of(name.to_ascii_uppercase()), &*key);
            prop_assert_eq!(key_of(format!("{name}:latest")), &*key);
            prop_assert_ne!(key_of(format!("{name}:other")), key);
        }

        #[test]
        fn no_name_makes_it_panic(name in any::<String>()) {
            prop_assert!(model_key(&name).ends_with(|c| c != '/') || name.ends_with('/'));
        }
    }
}
