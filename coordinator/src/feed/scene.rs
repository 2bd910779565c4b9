//! What viewers have been shown, so that they are told what has changed and nothing else. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::AgentLoad;
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentWarning, UnroutableReason};

use crate::registry::snapshot::AgentSnapshot;
use crate::storage::agent::StoredAgent;

/// How finely memory in use is shown.
const STEP: u64 = 32 << 20;

/// What has been shown.
#[derive(Debug, Default)]
pub(super) struct Scene {
    agents: BTreeMap<AgentId, Shown>,
    /// Up to where loads were told; those after it are next.
    told_to: Option<AgentId>,
}

#[derive(Debug)]
struct Shown {
    stored: Arc<StoredAgent>,
    status: AgentStatus,
    reason: Option<UnroutableReason>,
    warning: Option<AgentWarning>,
    draining: bool,
    in_flight: u32,
    metrics: Option<Metrics>,
}

impl Scene {
    /// Shows an agent and returns whether more than its load has changed.
    pub(super) fn show(&mut self, agent: &AgentSnapshot) -> bool {
        let known = self.agents.get(&agent.id());
        let is_news = known.is_none_or(|shown| !shown.is_document_of(agent));
        if is_news {
            self.agents.insert(agent.id(), Shown::of(agent));
        }
        is_news
    }

    /// Takes an agent away.
    pub(super) fn forget(&mut self, id: AgentId) {
        self.agents.remove(&id);
    }

    /// Returns the loads that have changed: at most so many, and those left out come first next time.
    pub(super) fn loads(&mut self, agents: &[AgentSnapshot], most: usize) -> Vec<AgentLoad> {
        let told_to = self.told_to.take();
        let split = told_to.map_or(0, |last| agents.partition_point(|agent| agent.id() <= last));
        let (before, after) = agents.split_at(split);
        let mut loads = Vec::new();
        for agent in after.iter().chain(before) {
            let Some(shown) = self.agents.get_mut(&agent.id()) else {
                continue;
            };
            let metrics = agent.metrics.as_deref().map(visible);
            if shown.in_flight == agent.in_flight && shown.metrics == metrics {
                continue;
            }
            shown.in_flight = agent.in_flight;
            shown.metrics.clone_from(&metrics);
            loads.push(AgentLoad {
                id: agent.id(),
                in_flight: agent.in_flight,
                metrics,
            });
            if loads.len() == most {
                self.told_to = loads.last().map(|load| load.id);
                break;
            }
        }
        loads
    }
}

impl Shown {
    fn of(agent: &AgentSnapshot) -> Self {
        Self {
            stored: Arc::clone(&agent.stored),
            status: agent.status,
            reason: agent.reason,
            warning: agent.warning,
            draining: agent.draining,
            in_flight: agent.in_flight,
            metrics: agent.metrics.as_deref().map(visible),
        }
    }

    fn is_document_of(&self, agent: &AgentSnapshot) -> bool {
        Arc::ptr_eq(&self.stored, &agent.stored)
            && self.status == agent.status
            && self.reason == agent.reason
            && self.warning == agent.warning
            && self.draining == agent.draining
    }
}

/// Returns load as people see it, in whole per cents and degrees and steps of 32 MiB: a change that
/// nobody sees need not be told.
fn visible(metrics: &Metrics) -> Metrics {
    let size = |bytes: u64| bytes.saturating_add(STEP / 2) / STEP * STEP;
    Metrics {
        cpu_percent: metrics.cpu_percent.map(f32::round),
        memory_used_bytes: metrics.memory_used_bytes.map(size),
        gpu_percent: metrics.gpu_percent.map(f32::round),
        gpu_memory_used_bytes: metrics.gpu_memory_used_bytes.map(size),
        gpu_temperature_celsius: metrics.gpu_temperature_celsius.map(f32::round),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Utc;

    use crate::registry::agent::Link;
    use crate::storage::conformance;

    /// Returns agents in the order of their ids.
    fn agents(count: u16) -> Vec<AgentSnapshot> {
        let agent = |number| {
            let stored = Arc::new(conformance::agent(number));
            AgentSnapshot {
                link: Link::Tunnel(None),
                stored,
                status: AgentStatus::Online,
                reason: None,
                warning: None,
                draining: false,
                last_seen: Utc::now(),
                metrics: None,
                in_flight: 0,
            }
        };
        let mut agents: Vec<AgentSnapshot> = (1..=count).map(agent).collect();
        agents.sort_by_key(AgentSnapshot::id);
        agents
    }

    #[test]
    fn agent_is_shown_again_only_when_its_document_changes() {
        let mut agent = agents(1).remove(0);
        let mut scene = Scene::default();

        assert!(scene.show(&agent));
        agent.in_flight = 1;
        assert!(!scene.show(&agent));
        agent.draining = true;
        assert!(scene.show(&agent));
        scene.forget(agent.id());
        assert!(scene.show(&agent));
    }

    #[test]
    fn load_that_looks_the_same_is_not_told() {
        let mut agents = agents(1);
        let mut scene = Scene::default();
        let load = |percent: f32, bytes: u64| {
            Some(Arc::new(Metrics {
                cpu_percent: Some(percent),
                memory_used_bytes: Some(bytes),
                ..Metrics::default()
            }))
        };
        agents[0].metrics = load(12.3, STEP + 1);
        scene.show(&agents[0]);

        agents[0].metrics = load(11.6, STEP + STEP / 2 - 1);
        assert_eq!(scene.loads(&agents, 1), []);
        agents[0].metrics = load(12.6, STEP + STEP / 2);
        let told = scene.loads(&agents, 1);

        let metrics = told[0].metrics.as_ref().unwrap();
        assert_eq!(metrics.cpu_percent, Some(13.0));
        assert_eq!(metrics.memory_used_bytes, Some(2 * STEP));
    }

    #[test]
    fn load_is_told_once_and_every_agent_has_its_turn() {
        let mut agents = agents(5);
        let mut scene = Scene::default();
        for agent in &mut agents {
            scene.show(agent);
            agent.in_flight = 1;
        }

        let mut told = Vec::new();
        for _ in 0..2 {
            told.extend(scene.loads(&agents, 3).into_iter().map(|load| load.id));
        }

        let ids: Vec<AgentId> = agents.iter().map(AgentSnapshot::id).collect();
        assert_eq!(told, ids);
        assert_eq!(scene.loads(&agents, 3), []);
    }

    #[test]
    fn agent_that_changes_all_the_time_does_not_keep_others_from_their_turn() {
        let mut agents = agents(4);
        let mut scene = Scene::default();
        for agent in &agents {
            scene.show(agent);
        }

        let mut told = Vec::new();
        for round in 1..=4 {
            for agent in &mut agents {
                agent.in_flight = round;
            }
            told.extend(scene.loads(&agents, 1).into_iter().map(|load| load.id));
        }

        let ids: Vec<AgentId> = agents.iter().map(AgentSnapshot::id).collect();
        assert_eq!(told, ids);
    }
}
