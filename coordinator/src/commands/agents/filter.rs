//! `--filter` and `--sort`: which agents are shown, and in which order. Pure.

use std::cmp::Reverse;
use std::str::FromStr;

use clap::ValueEnum;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};

use super::table;

const KEYS: &str = "id, name, state, gpu, model, link, address, version, label.NAME";

/// What an agent has to be to be shown: `state=offline`, `gpu~a6000`, `label.room=101`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    key: Key,
    comparison: Comparison,
    /// In lower case.
    value: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Id,
    Name,
    State,
    Gpu,
    Model,
    Link,
    Address,
    Version,
    Label(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Is,
    Contains,
}

/// A text that is no filter.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFilter {
    /// Nothing is compared.
    #[error("write KEY=VALUE or KEY~PART, such as state=offline or gpu~a6000")]
    NoComparison,
    /// There is no such thing.
    #[error("`{0}` is not known; known are {KEYS}")]
    UnknownKey(String),
}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let at = text.find(['=', '~']).ok_or(InvalidFilter::NoComparison)?;
        let (key, rest) = text.split_at(at);
        let (comparison, value) = match rest.strip_prefix('~') {
            Some(value) => (Comparison::Contains, value),
            None => (Comparison::Is, rest.trim_start_matches('=')),
        };
        let key = match key.trim() {
            "id" => Key::Id,
            "name" => Key::Name,
            "state" => Key::State,
            "gpu" => Key::Gpu,
            "model" => Key::Model,
            "link" => Key::Link,
            "address" => Key::Address,
            "version" => Key::Version,
            other => match other.strip_prefix("label.") {
                Some(label) => Key::Label(label.to_owned()),
                None => return Err(InvalidFilter::UnknownKey(other.to_owned())),
            },
        };
        Ok(Self {
            key,
            comparison,
            value: value.trim().to_lowercase(),
        })
    }
}

impl Filter {
    /// Returns whether the agent is to be shown.
    pub fn matches(&self, agent: &AgentView) -> bool {
        let mut values = self
            .values(agent)
            .into_iter()
            .map(|value| value.to_lowercase());
        match self.comparison {
            Comparison::Is => values.any(|value| value == self.value),
            Comparison::Contains => values.any(|value| value.contains(&self.value)),
        }
    }

    fn values(&self, agent: &AgentView) -> Vec<String> {
        match &self.key {
            Key::Id => vec![agent.id.to_string()],
            Key::Name => vec![table::name(agent).to_owned(), agent.machine_name.clone()],
            Key::State => vec![table::state(agent).to_owned(), status(agent).to_owned()],
            Key::Gpu => vec![table::gpus(agent.system_info.as_ref())],
            Key::Model => agent
                .models
                .iter()
                .map(|model| model.name.clone())
                .collect(),
            Key::Link => vec![agent.link.to_string()],
            Key::Address => vec![table::address(agent), agent.ip_address.to_string()],
            Key::Version => agent.agent_version.iter().cloned().collect(),
            Key::Label(label) => agent.labels.get(label).into_iter().cloned().collect(),
        }
    }
}

fn status(agent: &AgentView) -> &'static str {
    match agent.status {
        AgentStatus::Online => "online",
        AgentStatus::Offline => "offline",
    }
}

/// The order in which agents are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// By name: lines do not move.
    #[default]
    Name,
    /// Those without requests first.
    State,
    /// The longest silent first.
    Seen,
    /// The busiest first.
    Running,
}

impl Order {
    /// Puts the agents in this order; those alike by name.
    pub fn sort(self, agents: &mut [AgentView]) {
        agents.sort_by(|a, b| table::name(a).cmp(table::name(b)).then(a.id.cmp(&b.id)));
        match self {
            Self::Name => {}
            Self::State => agents.sort_by_key(|agent| {
                (
                    agent.routable,
                    agent.status == AgentStatus::Online,
                    agent.warning.is_none(),
                )
            }),
            Self::Seen => agents.sort_by_key(|agent| agent.last_seen),
            Self::Running => agents.sort_by_key(|agent| Reverse(agent.in_flight)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn agent(name: &str, change: &serde_json::Value) -> AgentView {
        let mut agent = json!({
            "id": "6e0b1a52-7a3e-4a0e-9d0a-2f6d8a1c9b11", "machine_name": name,
            "ip_address": "192.168.1.5", "port": 11434, "link": "tunnel", "status": "online",
            "routable": true, "draining": false, "in_flight": 0, "epoch": 1, "loaded_models": [],
            "runtime": { "kind": "ollama", "status": "running" }, "models": [{ "name": "llama3:8b" }],
            "labels": { "room": "101" }, "agent_version": "0.1.0",
            "system_info": { "gpus": [{ "name": "RTX A6000" }] },
            "registered_at": "2026-11-24T12:00:00Z", "last_seen": "2026-11-24T12:00:00Z",
        });
        for (key, value) in change.as_object().into_iter().flatten() {
            agent[key] = value.clone();
        }
        serde_json::from_value(agent).unwrap()
    }

    #[rstest]
    #[case("state=ready", true)]
    #[case("state=ONLINE", true)]
    #[case("state=offline", false)]
    #[case("gpu~a6000", true)]
    #[case("gpu=a6000", false)]
    #[case("label.room=101", true)]
    #[case("label.room=102", false)]
    #[case("label.rack~", false)]
    #[case("model~llama3", true)]
    #[case("link=direct", false)]
    #[case("address=192.168.1.5", true)]
    #[case("name~hub", true)]
    #[case("version=0.1.0", true)]
    #[case("id~6e0b", true)]
    fn filters_choose_agents(#[case] filter: &str, #[case] expected: bool) {
        let filter: Filter = filter.parse().unwrap();

        assert_eq!(filter.matches(&agent("gpu-hub", &json!({}))), expected);
    }

    #[rstest]
    #[case("offline", "write KEY=VALUE")]
    #[case("colour=red", "`colour` is not known; known are id, name")]
    fn other_texts_are_refused_with_what_is_known(#[case] text: &str, #[case] expected: &str) {
        let error = text.parse::<Filter>().unwrap_err().to_string();

        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case(Order::Name, ["a", "b", "c", "d"])]
    #[case(Order::State, ["c", "b", "a", "d"])]
    #[case(Order::Seen, ["d", "a", "b", "c"])]
    #[case(Order::Running, ["b", "a", "c", "d"])]
    fn orders_are_by_name_among_those_alike(#[case] order: Order, #[case] expected: [&str; 4]) {
        let mut agents = [
            agent("d", &json!({ "last_seen": "2026-11-24T11:00:00Z" })),
            agent("c", &json!({ "status": "offline", "routable": false })),
            agent("b", &json!({ "routable": false, "in_flight": 2 })),
            agent("a", &json!({})),
        ];

        order.sort(&mut agents);

        let names: Vec<&str> = agents.iter().map(table::name).collect();
        assert_eq!(names, expected);
    }
}
