//! The table of agents, as text. Pure.

use std::fmt::Write as _;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::protocol::system::{Gpu, SystemInfo};
use ollama_coordinator_common::protocol::view::{
    AgentStatus, AgentView, AgentWarning, UnroutableReason,
};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

const GAP: &str = "  ";
const UNKNOWN: &str = "-";
/// One long name must not push the columns of all others off the screen.
const WIDEST_CELL: usize = 40;

/// One column: its title, and what it says of an agent.
type Column = (&'static str, fn(&AgentView, DateTime<Utc>) -> String);

const COLUMNS: [Column; 9] = [
    ("NAME", |agent, _| name(agent).to_owned()),
    ("STATE", |agent, _| state(agent).to_owned()),
    ("RUNTIME", |agent, _| known(agent.ollama_version.as_deref())),
    ("GPU", |agent, _| gpus(agent.system_info.as_ref())),
    ("RUNNING", |agent, _| running(agent)),
    ("MODELS", |agent, _| agent.models.len().to_string()),
    ("LINK", |agent, _| agent.link.to_string()),
    ("ADDRESS", |agent, _| address(agent)),
    ("SEEN", |agent, now| ago(now, agent.last_seen)),
];
const FURTHER: [Column; 4] = [
    ("VERSION", |agent, _| known(agent.agent_version.as_deref())),
    ("SYSTEM", |agent, _| {
        let system = agent.system_info.as_ref();
        known(system.and_then(|system| system.os.as_deref()))
    }),
    ("LABELS", |agent, _| labels(agent)),
    ("ID", |agent, _| agent.id.to_string()),
];

/// How much of each agent is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// What fits on a screen.
    Normal,
    /// More.
    Wide,
}

/// Returns the table of agents in the order given, with a summary below it.
pub fn render(agents: &[AgentView], width: Width, now: DateTime<Utc>) -> String {
    let mut rows = rows(agents, width, now);
    if width == Width::Normal {
        rows.iter_mut().flatten().for_each(shorten);
    }
    let columns = rows[0].len();
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .map(|row| row[column].width())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let padding = width.saturating_sub(cell.width());
            format!("{cell}{:padding$}", "")
        });
        let line = cells.collect::<Vec<_>>().join(GAP);
        writeln!(text, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }
    text.push('\n');
    text.push_str(&summary(agents));
    text
}

/// Returns all that is known as values between tabs, the titles first.
pub fn tab_separated(agents: &[AgentView], now: DateTime<Utc>) -> String {
    let rows = rows(agents, Width::Wide, now);
    let lines = rows.iter().map(|row| row.join("\t") + "\n");
    lines.collect()
}

fn rows(agents: &[AgentView], width: Width, now: DateTime<Utc>) -> Vec<Vec<String>> {
    let further: &[Column] = match width {
        Width::Normal => &[],
        Width::Wide => &FURTHER,
    };
    let columns = || COLUMNS.iter().chain(further);
    let mut rows = vec![
        columns()
            .map(|(title, _)| (*title).to_owned())
            .collect::<Vec<_>>(),
    ];
    rows.extend(agents.iter().map(|agent| {
        let cells = columns().map(|(_, cell)| cell(agent, now));
        cells.collect()
    }));
    rows
}

fn shorten(cell: &mut String) {
    if cell.width() <= WIDEST_CELL {
        return;
    }
    let mut width = 0;
    let end = cell.char_indices().find(|(_, c)| {
        width += c.width().unwrap_or(0);
        width >= WIDEST_CELL
    });
    cell.truncate(end.map_or(cell.len(), |(end, _)| end));
    cell.push('…');
}

fn summary(agents: &[AgentView]) -> String {
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
    text.push('.');
    if let Some(idle) = agents.iter().find(|agent| !agent.routable) {
        write!(text, "  Why: ollama-coordinator doctor {}", name(idle))
            .expect("writing cannot fail");
    }
    text.push('\n');
    text
}

/// Returns what the operator calls the agent, else what the machine calls itself.
pub fn name(agent: &AgentView) -> &str {
    agent.display_name.as_deref().unwrap_or(&agent.machine_name)
}

fn known(text: Option<&str>) -> String {
    text.unwrap_or(UNKNOWN).to_owned()
}

fn running(agent: &AgentView) -> String {
    match agent.capacity {
        Some(capacity) => format!("{}/{capacity}", agent.in_flight),
        None => agent.in_flight.to_string(),
    }
}

/// Returns where the agent's runtime is.
pub fn address(agent: &AgentView) -> String {
    SocketAddr::new(agent.ip_address, agent.port).to_string()
}

fn labels(agent: &AgentView) -> String {
    let labels = agent
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let labels = labels.collect::<Vec<_>>().join(",");
    if labels.is_empty() {
        UNKNOWN.to_owned()
    } else {
        labels
    }
}

/// Returns how the agent is, in a word or two.
pub fn state(agent: &AgentView) -> &'static str {
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

/// Returns the machine's graphics cards.
pub fn gpus(system: Option<&SystemInfo>) -> String {
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

/// Returns how long ago something was.
pub fn ago(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    match now.signed_duration_since(then).num_seconds() {
        ..=1 => "now".to_owned(),
        seconds @ 2..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("gpu-02", "gpu-02")]
    #[case(&"x".repeat(40), &"x".repeat(40))]
    #[case(&"x".repeat(255), &("x".repeat(39) + "…"))]
    #[case(&"一".repeat(30), &("一".repeat(19) + "…"))]
    fn no_cell_pushes_the_others_off_the_screen(#[case] cell: &str, #[case] expected: &str) {
        let mut cell = cell.to_owned();

        shorten(&mut cell);

        assert_eq!(cell, expected);
        assert!(cell.width() <= WIDEST_CELL);
    }
}
