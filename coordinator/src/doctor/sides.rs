//! One agent as the coordinator sees it and as the agent said it of itself. Pure.

use chrono::{DateTime, Utc};
use ollama_coordinator_common::doctor::{Answer, CheckId};
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeStatus};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{
    AgentStatus, AgentView, AgentWarning, UnroutableReason,
};
use ollama_coordinator_common::version::{self, Version};
use serde::Serialize;

use crate::commands::agents::table::{address, ago};

/// One thing from both sides; a side that cannot know is silent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) id: CheckId,
    /// What it is, where the id does not say all.
    pub(crate) about: String,
    pub(crate) coordinator: Option<Side>,
    pub(crate) agent: Option<Side>,
}

/// What one side says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Side {
    pub(crate) answer: Answer,
    pub(crate) found: String,
}

/// What came of trying the agent's address now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dialled {
    /// Its runtime answered, and this is what it is.
    Answered(String),
    /// It did not.
    Failed(String),
    /// There was no reason to try.
    NotTried,
}

impl Row {
    fn new(id: CheckId, coordinator: Option<Side>, agent: Option<Side>) -> Self {
        let about = id.to_string();
        Self {
            id,
            about,
            coordinator,
            agent,
        }
    }

    /// Returns whether a side says that it is broken.
    pub(crate) fn is_broken(&self) -> bool {
        let sides = [&self.coordinator, &self.agent];
        let mut sides = sides.into_iter().flatten();
        sides.any(|side| side.answer == Answer::Error)
    }
}

fn side(answer: Answer, found: impl Into<String>) -> Side {
    let found = found.into();
    Side { answer, found }
}

/// Compares both sides.
pub(crate) fn compare(agent: &AgentView, dialled: &Dialled, now: DateTime<Utc>) -> Vec<Row> {
    let mut rows = vec![heartbeats(agent, now)];
    rows.push(match agent.link {
        LinkKind::Tunnel => tunnel(agent),
        LinkKind::Direct => reach(agent, dialled),
    });
    rows.extend([
        version(agent),
        runtime(agent),
        models(agent),
        requests(agent),
    ]);
    rows
}

fn heartbeats(agent: &AgentView, now: DateTime<Utc>) -> Row {
    let seen = ago(now, agent.last_seen);
    let at = agent.last_seen.format("%Y-%m-%d %H:%M:%S UTC");
    let (coordinator, own) = match (agent.status, agent.warning) {
        (AgentStatus::Offline, _) => (
            side(Answer::Error, format!("none since {at} ({seen})")),
            side(Answer::Unknown, "not reporting"),
        ),
        (AgentStatus::Online, Some(AgentWarning::HeartbeatsMissing)) => (
            side(
                Answer::Warning,
                format!("none since {at}, but its runtime answers"),
            ),
            side(Answer::Unknown, "not reporting"),
        ),
        (AgentStatus::Online, None) => (
            side(Answer::Ok, format!("last one: {seen}")),
            side(Answer::Ok, "reporting"),
        ),
    };
    Row::new(CheckId::Heartbeats, Some(coordinator), Some(own))
}

fn tunnel(agent: &AgentView) -> Row {
    let coordinator = match (agent.status, agent.reason) {
        (AgentStatus::Offline, _) => side(Answer::Error, "is not up"),
        (AgentStatus::Online, Some(UnroutableReason::NoTunnel)) => side(Answer::Error, "is not up"),
        (AgentStatus::Online, _) => side(Answer::Ok, "is up"),
    };
    Row::new(CheckId::Tunnel, Some(coordinator), None)
}

fn reach(agent: &AgentView, dialled: &Dialled) -> Row {
    let coordinator = match (dialled, agent.reason) {
        (Dialled::Answered(what), _) => side(Answer::Ok, format!("{what} answers")),
        (Dialled::Failed(why), _) => side(Answer::Error, why.as_str()),
        (Dialled::NotTried, Some(UnroutableReason::Unreachable)) => {
            side(Answer::Error, "nothing answers")
        }
        (Dialled::NotTried, Some(UnroutableReason::Unverified)) => {
            side(Answer::Unknown, "not tried yet")
        }
        (Dialled::NotTried, _) => side(Answer::Ok, "answers"),
    };
    let own = reported(
        agent,
        match agent.runtime.status {
            RuntimeStatus::Running => (Answer::Ok, "answers on the machine itself"),
            RuntimeStatus::NotAnswering => (Answer::Error, "does not answer on the machine either"),
        },
    );
    let about = format!("reach {}", address(agent));
    Row {
        about,
        ..Row::new(CheckId::Reach, Some(coordinator), Some(own))
    }
}

fn version(agent: &AgentView) -> Row {
    let told = agent.agent_version.as_deref();
    let own = told.map(|told| Side {
        answer: match Version::parse(told) {
            Some(version) if version < version::OLDEST_AGENT => Answer::Error,
            Some(_) => Answer::Ok,
            None => Answer::Unknown,
        },
        found: told.to_owned(),
    });
    Row::new(CheckId::Version, Some(side(Answer::Ok, version::OWN)), own)
}

fn runtime(agent: &AgentView) -> Row {
    let kind = match agent.runtime.kind {
        RuntimeKind::Ollama => "Ollama",
        RuntimeKind::Openai => "OpenAI API",
    };
    let version = agent.runtime.version.as_deref().unwrap_or_default();
    let own = match agent.runtime.status {
        RuntimeStatus::Running => {
            let found = format!("{kind} {version}");
            reported(agent, (Answer::Ok, found.trim_end()))
        }
        RuntimeStatus::NotAnswering => reported(agent, (Answer::Error, "does not answer")),
    };
    Row::new(CheckId::Runtime, None, Some(own))
}

fn models(agent: &AgentView) -> Row {
    let (count, loaded) = (agent.models.len(), agent.loaded_models.len());
    let answer = if count == 0 {
        Answer::Warning
    } else {
        Answer::Ok
    };
    let found = format!("{count}, {loaded} of them in memory");
    Row::new(
        CheckId::Models,
        None,
        Some(reported(agent, (answer, &found))),
    )
}

fn requests(agent: &AgentView) -> Row {
    let running = match agent.capacity {
        Some(capacity) => format!("{} of {capacity} running", agent.in_flight),
        None => format!("{} running", agent.in_flight),
    };
    let why_not = match agent.reason {
        Some(UnroutableReason::Ejected) => "; it failed and gets none for a while",
        Some(UnroutableReason::Paused) => "; its owner has paused it",
        _ if agent.draining => "; it is being emptied",
        _ => return Row::new(CheckId::Requests, Some(side(Answer::Ok, running)), None),
    };
    let coordinator = side(Answer::Warning, running + why_not);
    Row::new(CheckId::Requests, Some(coordinator), None)
}

/// What an agent said that is offline counts no more, but is still worth knowing.
fn reported(agent: &AgentView, (answer, found): (Answer, &str)) -> Side {
    match agent.status {
        AgentStatus::Online => side(answer, found),
        AgentStatus::Offline => side(Answer::Unknown, format!("was: {found}")),
    }
}

/// Says for how long the agent has been away, when it is.
pub(crate) fn standing(agent: &AgentView, now: DateTime<Utc>) -> String {
    match (agent.status, agent.reason) {
        (AgentStatus::Offline, _) => {
            format!("offline, last heard of: {}", ago(now, agent.last_seen))
        }
        (AgentStatus::Online, None) => "online, gets requests".to_owned(),
        (AgentStatus::Online, Some(reason)) => format!("online, gets no requests ({reason})"),
    }
}
