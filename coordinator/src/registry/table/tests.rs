//! The table under a clock that the test moves.

use std::time::Duration;

use ollama_coordinator_common::id::SessionId;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{
    AgentStatus, AgentWarning, PatchAgentRequest, UnroutableReason,
};
use ollama_coordinator_common::secret::AgentSecret;
use proptest::prelude::*;

use super::*;
use crate::registry::registration::NewAgent;

mod identity;
mod lease;
mod model;
mod reach;
mod staging;
mod suspicion;
mod tunnel;

const POLICY: LeasePolicy = LeasePolicy {
    interval: Duration::from_secs(1),
    fixed_ttl: None,
};

fn start() -> Moment {
    Moment::now()
}

fn after(now: Moment, seconds: f64) -> Moment {
    let by = Duration::from_secs_f64(seconds);
    Moment {
        mono: now.mono + by,
        wall: now.wall + by,
    }
}

fn agent(number: u128) -> NewAgent {
    NewAgent {
        id: Some(AgentId::from_u128(number)),
        secret: None,
        session: Some(SessionId::from_u128(number)),
        epoch: None,
        cloned_from: None,
        machine_name: format!("gpu-{number}"),
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

fn register(table: &mut AgentTable, new: &NewAgent, now: Moment) -> Granted {
    match table.register(new, now).unwrap() {
        Registration::Settled(granted) => granted,
        Registration::Staged(ticket) => table.publish(ticket, now).unwrap(),
    }
}

fn beat(session: u128) -> HeartbeatRequest {
    HeartbeatRequest {
        session: Some(SessionId::from_u128(session)),
        ..Default::default()
    }
}

fn status(table: &AgentTable, id: AgentId, now: Moment) -> AgentStatus {
    table.get(id, now).unwrap().status
}

fn fleet(table: &mut AgentTable, size: u128, now: Moment) -> Vec<AgentId> {
    (1..=size)
        .map(|number| register(table, &agent(number), now).id)
        .collect()
}

fn staged(table: &mut AgentTable, new: &NewAgent, now: Moment) -> Ticket {
    match table.register(new, now).unwrap() {
        Registration::Staged(ticket) => ticket,
        Registration::Settled(granted) => panic!("it had to be committed, not {granted:?}"),
    }
}

fn committed(ticket: &Ticket) -> StoredAgent {
    match ticket.to_commit() {
        crate::storage::Change::Put(stored) => StoredAgent::clone(&stored),
        crate::storage::Change::Remove(id) => panic!("{id} is removed"),
    }
}
