//! The table of agents, as text. Pure.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::protocol::system::{Gpu, SystemInfo};
use ollama_coordinator_common::protocol::view::{
    AgentStatus, AgentView, AgentWarning, UnroutableReason,
};

const COLUMNS: [&str; 9] = [
    "NAME", "STATE", "RUNTIME", "GPU", "RUNNING", "MODELS", "LINK", "ADDRESS", "SEEN",
];
const GAP: &str = "  ";
const UNKNOWN: &str = "-";

/// Returns the table, sorted by name, with a summary below it.
pub fn render(agents: &[AgentView], now: DateTime<Utc>) -> String {
    if agents.is_empty() {
        return "No agents yet. On each machine, run: ollama-agent --coordinator URL\n".to_owned();
    }
    let mut agents: Vec<&AgentView> = agents.iter().collect();
    agents.sort_by(|a, b| name(a).cmp(name(b)).then(a.id.cmp(&b.id)));
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    rows.extend(agents.iter().map(|agent| cells(agent, now)));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join(GAP);
        writeln!(text, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }
    text.push('\n');
    text.push_str(&summary(&agents));
    text
}

fn summary(agents: &[&AgentView]) -> String {
    let ready = agents.iter().filter(|agent| agent.routable).count();
    let offline = agents
        .iter()
        .filter(|a| a.status == AgentStatus::Offline)
        .count();
    let other = agents.len() - ready - offline;
    let noun = if agents.len() == 1 { "agent" } else { "agents" };
    let mut text = format!("{} {noun}: {ready} ready", agents.len());
    if other > 0 {
        write!(text, ", {other} online without requests").expect("writing cannot fail");
    }
    if offline > 0 {
        write!(text, ", {offline} offline").expect("writing cannot fail");
    }
    text.push_str(".\n");
    text
}

fn name(agent: &AgentView) -> &str {
    agent.display_name.as_deref().unwrap_or(&agent.machine_name)
}

fn cells(agent: &AgentView, now: DateTime<Utc>) -> [String; 9] {
    let running = match agent.capacity {
        Some(capacity) => format!("{}/{capacity}", agent.in_flight),
        None => agent.in_flight.to_string(),
    };
    let address = match agent.ip_address {
        std::net::IpAddr::V4(ip) => format!("{ip}:{}", agent.port),
        std::net::IpAddr::V6(ip) => format!("[{ip}]:{}", agent.port),
    };
    [
        name(agent).to_owned(),
        state(agent).to_owned(),
        agent
            .ollama_version
            .clone()
            .unwrap_or_else(|| UNKNOWN.to_owned()),
        gpus(agent.system_info.as_ref()),
        running,
        agent.models.len().to_string(),
        agent.link.to_string(),
        address,
        ago(now, agent.last_seen),
    ]
}

fn state(agent: &AgentView) -> &'static str {
    match agent.reason {
        None if agent.warning == Some(AgentWarning::HeartbeatsMissing) => "no heartbeats",
        None => "ready",
        Some(UnroutableReason::Offline) => "offline",
        Some(UnroutableReason::Draining) => "draining",
        Some(UnroutableReason::Paused) => "paused",
        Some(UnroutableReason::Unverified) => "checking",
        Some(UnroutableReason::Unreachable) => "unreachable",
        Some(UnroutableReason::NoTunnel) => "no tunnel",
        Some(UnroutableReason::RuntimeNotAnswering) => "no runtime",
        Some(UnroutableReason::Ejected) => "ejected",
    }
}

fn gpus(system: Option<&SystemInfo>) -> String {
    let Some(gpus) = system.and_then(|system| system.gpus.as_deref()) else {
        return UNKNOWN.to_owned();
    };
    let Some(first) = gpus.first() else {
        return "none".to_owned();
    };
    let count = if gpus.len() > 1 {
        format!("{}x ", gpus.len())
    } else {
        String::new()
    };
    format!("{count}{}{}", first.name, memory(first))
}

fn memory(gpu: &Gpu) -> String {
    const GIB: u64 = 1 << 30;
    gpu.memory_bytes.map_or_else(String::new, |bytes| {
        format!(" {} GiB", (bytes + GIB / 2) / GIB)
    })
}

fn ago(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    match now.signed_duration_since(then).num_seconds() {
        ..=1 => "now".to_owned(),
        seconds @ 2..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
