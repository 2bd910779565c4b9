//! One agent from both sides: what the coordinator knows, what the agent said, and a fresh look.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::doctor::{Answer, Check, routable};
use ollama_coordinator_common::http::{HttpClient, HttpTimeouts};
use ollama_coordinator_common::probe::{ANSWER_LIMIT, probe};
use ollama_coordinator_common::protocol::event::{Happening, HappeningKind};
use ollama_coordinator_common::protocol::runtime::RuntimeKind;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::sides::{Dialled, Row, Side, compare, standing};
use crate::commands::agents::table::{ago, name};
use crate::commands::ask::{CommandError, fetch};

const SCHEMA: &str = "ollama-coordinator.doctor.agent/1";
const BROKEN: u8 = 4;
/// How many of the latest happenings are searched for the agent's.
const HAPPENINGS: &str = "/api/events/log?limit=1000";
const GLANCE: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(3),
    answer: Duration::from_secs(5),
};
/// How many agents are named when none is meant by a name.
const NAMED: usize = 10;
const SILENT: &str = "–";

/// An agent from both sides.
#[derive(Debug, Serialize)]
pub(crate) struct Sides {
    schema: &'static str,
    generated_at: DateTime<Utc>,
    agent: AgentView,
    last_word: Option<Happening>,
    rows: Vec<Row>,
    /// The outcome: is it all right, and what to do when it is not.
    result: Check,
}

/// Finds the agent and looks at it.
pub(crate) async fn examine(client: &mut HttpClient, wanted: &str) -> Result<Sides, CommandError> {
    let agents: Vec<AgentView> = fetch(client, "/api/agents").await?;
    let agent = choose(agents, wanted).map_err(CommandError::NoSuchAgent)?;
    let happenings: Vec<Happening> = fetch(client, HAPPENINGS).await.unwrap_or_default();
    let own = |happening: &Happening| happening.agent_id == Some(agent.id);
    let last_word = happenings
        .into_iter()
        .filter(own)
        .max_by_key(|happening| happening.number);
    let dialled = dial(&agent).await;
    let now = Utc::now();
    Ok(Sides {
        schema: SCHEMA,
        generated_at: now,
        rows: compare(&agent, &dialled, now),
        result: conclude(&agent, last_word.as_ref(), &dialled),
        last_word,
        agent,
    })
}

/// Finds the one agent that is meant by a name, an id or the start of one.
fn choose(agents: Vec<AgentView>, wanted: &str) -> Result<AgentView, String> {
    let is_named = |agent: &AgentView| {
        name(agent) == wanted || agent.machine_name == wanted || agent.id.to_string() == wanted
    };
    let (mut meant, others): (Vec<_>, Vec<_>) = agents.into_iter().partition(is_named);
    if meant.is_empty() && wanted.len() >= 4 {
        let starts = |agent: &AgentView| agent.id.to_string().starts_with(wanted);
        meant = others
            .iter()
            .filter(|agent| starts(agent))
            .cloned()
            .collect();
    }
    if meant.len() == 1 {
        return Ok(meant.remove(0));
    }
    if meant.is_empty() {
        let known = others
            .iter()
            .take(NAMED)
            .map(name)
            .collect::<Vec<_>>()
            .join(", ");
        return Err(format!("no agent is called `{wanted}`; known are: {known}"));
    }
    let ids = meant
        .iter()
        .map(|agent| agent.id.to_string())
        .collect::<Vec<_>>();
    Err(format!(
        "several agents are called `{wanted}`; say which by its id: {}",
        ids.join(", ")
    ))
}

/// Tries an address that the coordinator dials too.
async fn dial(agent: &AgentView) -> Dialled {
    if agent.link == LinkKind::Tunnel {
        return Dialled::NotTried;
    }
    let url = BaseUrl::from_addr(SocketAddr::new(agent.ip_address, agent.port));
    let mut client = HttpClient::new(url, GLANCE).with_answer_limit(ANSWER_LIMIT);
    match probe(&mut client).await {
        Ok(report) => Dialled::Answered(match report.kind {
            RuntimeKind::Ollama => "Ollama".to_owned(),
            RuntimeKind::Openai => "a server with the OpenAI API".to_owned(),
        }),
        Err(error) => Dialled::Failed(anyhow::Error::from(error).root_cause().to_string()),
    }
}

fn conclude(agent: &AgentView, last_word: Option<&Happening>, dialled: &Dialled) -> Check {
    let explained = routable::explain(agent);
    if agent.status == AgentStatus::Online {
        return explained;
    }
    let has_left = last_word.is_some_and(|word| word.kind == HappeningKind::Left);
    let found = match (dialled, has_left) {
        (_, true) => "the agent there was stopped: it said goodbye",
        (Dialled::Answered(_), false) => "the machine is up, the agent on it is not heard of",
        (Dialled::Failed(_) | Dialled::NotTried, false) => {
            "nothing is heard of the agent: its machine, its network or the agent is down"
        }
    };
    let remedy = "start it there: ollama-agent; if it runs, run there: ollama-agent doctor";
    Check::error(explained.id, found).with_remedy(remedy)
}

impl Sides {
    pub(crate) fn exit_code(&self) -> u8 {
        let is_broken = self.result.answer == Answer::Error || self.rows.iter().any(Row::is_broken);
        if is_broken { BROKEN } else { 0 }
    }

    /// Returns what was found for programs. Fields are only ever added.
    pub(crate) fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("plain fields become JSON") + "\n"
    }

    /// Returns what was found for people; what matters most stands last.
    pub(crate) fn to_text(&self) -> String {
        let now = self.generated_at;
        let mut lines = vec![self.heading(now), String::new()];
        let reported = match self.agent.status {
            AgentStatus::Online => "from agent".to_owned(),
            AgentStatus::Offline => {
                format!(
                    "from agent (last report {})",
                    since(now, self.agent.last_seen)
                )
            }
        };
        let mut cells = vec![[String::new(), "from coordinator".to_owned(), reported]];
        cells.extend(self.rows.iter().map(|row| {
            [
                row.about.clone(),
                shown(row.coordinator.as_ref()),
                shown(row.agent.as_ref()),
            ]
        }));
        let width = |column: usize| {
            cells
                .iter()
                .map(|row| row[column].width())
                .max()
                .unwrap_or(0)
        };
        let widths = [width(0), width(1)];
        lines.extend(cells.iter().map(|[about, coordinator, agent]| {
            let (first, second) = (widths[0] - about.width(), widths[1] - coordinator.width());
            let line = format!("{about}{:first$}  {coordinator}{:second$}  {agent}", "", "");
            line.trim_end().to_owned()
        }));
        let mut text = lines.join("\n");
        write!(text, "\n\nResult: {}\n", self.result.found).expect("writing cannot fail");
        if let Some(remedy) = &self.result.remedy {
            writeln!(text, "Fix:    {remedy}").expect("writing cannot fail");
        }
        text
    }

    fn heading(&self, now: DateTime<Utc>) -> String {
        let agent = &self.agent;
        let (name, standing, ip) = (name(agent), standing(agent, now), agent.ip_address);
        let last = self.last_word.as_ref().map(|word| {
            let reason = word.reason.as_deref().map(|reason| format!(" ({reason})"));
            let (what, reason) = (said(word.kind), reason.unwrap_or_default());
            format!(" · last event: {what}{reason}, {}", since(now, word.at))
        });
        let last = last.unwrap_or_default();
        format!(
            "Checking {name} ({}) · {standing} · address {ip}{last}",
            agent.id
        )
    }
}

fn since(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    match ago(now, then).as_str() {
        "now" => "just now".to_owned(),
        ago => format!("{ago} ago"),
    }
}

fn shown(side: Option<&Side>) -> String {
    side.map_or_else(
        || SILENT.to_owned(),
        |side| format!("{} {}", side.answer.sign(), side.found),
    )
}

fn said(kind: HappeningKind) -> &'static str {
    match kind {
        HappeningKind::Joined => "joined",
        HappeningKind::Returned => "came back",
        HappeningKind::Expired => "fell silent",
        HappeningKind::HeartbeatsMissing => "heartbeats missing",
        HappeningKind::Left => "said goodbye",
        HappeningKind::Routable => "gets requests",
        HappeningKind::NotRoutable => "gets no requests",
        HappeningKind::Removed => "was removed",
        HappeningKind::Refused => "was refused",
        HappeningKind::EndpointShared => "shares its address with another",
        HappeningKind::IsolationSuspected => "the coordinator suspected itself",
    }
}
