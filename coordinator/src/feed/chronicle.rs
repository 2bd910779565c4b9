//! What happened last, for people: bounded, in memory, lost at a restart. Pure.

use std::collections::VecDeque;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::event::{Happening, HappeningKind};

use crate::registry::snapshot::AgentSnapshot;
use crate::registry::transition::Transition;

/// How many happenings are remembered.
const MOST: usize = 1_000;
/// A refusal that is repeated within this time is told once.
const REFUSAL_APART: chrono::Duration = chrono::Duration::seconds(30);

/// A registration that was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What the machine calls itself.
    pub machine_name: String,
    /// Where it called from.
    pub remote: IpAddr,
    /// The error's code.
    pub code: String,
}

/// What happened last.
#[derive(Debug, Default)]
pub(super) struct Chronicle {
    happenings: VecDeque<Happening>,
    written: u64,
    told: u64,
}

impl Chronicle {
    /// Writes down a transition, if a person should know.
    pub(super) fn note(&mut self, transition: &Transition, at: DateTime<Utc>) {
        let happening = match transition {
            Transition::Joined(agent) => of_agent(HappeningKind::Joined, agent),
            Transition::Returned(agent) => of_agent(HappeningKind::Returned, agent),
            Transition::Expired { agent, .. } => of_agent(HappeningKind::Expired, agent),
            Transition::HeartbeatsMissing { agent, .. } => {
                of_agent(HappeningKind::HeartbeatsMissing, agent)
            }
            Transition::Left(agent) => of_agent(HappeningKind::Left, agent),
            Transition::RoutabilityChanged(agent) => of_agent(
                if agent.reason.is_none() {
                    HappeningKind::Routable
                } else {
                    HappeningKind::NotRoutable
                },
                agent,
            ),
            Transition::Changed(_) => return,
            Transition::Removed(id) => Happening {
                agent_name: self.name_of(*id),
                agent_id: Some(*id),
                ..blank(HappeningKind::Removed)
            },
            Transition::EndpointShared { endpoint, id, .. } => Happening {
                agent_id: Some(*id),
                address: Some(endpoint.to_string()),
                ..blank(HappeningKind::EndpointShared)
            },
            Transition::IsolationSuspected { overdue, .. } => Happening {
                agents: Some(*overdue),
                ..blank(HappeningKind::IsolationSuspected)
            },
        };
        self.write(happening, at);
    }

    /// Writes down a refusal, unless the same one was written down just now.
    pub(super) fn refused(&mut self, refusal: Refusal, at: DateTime<Utc>) {
        let happening = Happening {
            agent_name: Some(refusal.machine_name),
            address: Some(refusal.remote.to_string()),
            reason: Some(refusal.code),
            ..blank(HappeningKind::Refused)
        };
        let is_same = |known: &Happening| {
            known.kind == happening.kind
                && known.address == happening.address
                && known.agent_name == happening.agent_name
                && known.reason == happening.reason
        };
        let recent = self.happenings.iter().rev();
        let mut recent = recent.take_while(|known| at - known.at < REFUSAL_APART);
        if !recent.any(is_same) {
            self.write(happening, at);
        }
    }

    /// Returns the latest, newest first.
    pub(super) fn latest(&self, most: usize) -> Vec<Happening> {
        self.happenings.iter().rev().take(most).cloned().collect()
    }

    /// Returns what was written since the last call, oldest first.
    pub(super) fn take_news(&mut self) -> Vec<Happening> {
        let told = std::mem::replace(&mut self.told, self.written);
        let news = self.happenings.iter().filter(|known| known.number > told);
        news.cloned().collect()
    }

    fn name_of(&self, id: AgentId) -> Option<String> {
        let mut of_it = self.happenings.iter().rev();
        let last = of_it.find(|known| known.agent_id == Some(id))?;
        last.agent_name.clone()
    }

    fn write(&mut self, happening: Happening, at: DateTime<Utc>) {
        self.written += 1;
        if self.happenings.len() == MOST {
            self.happenings.pop_front();
        }
        self.happenings.push_back(Happening {
            number: self.written,
            at,
            ..happening
        });
    }
}

fn of_agent(kind: HappeningKind, agent: &AgentSnapshot) -> Happening {
    Happening {
        agent_id: Some(agent.id()),
        agent_name: Some(agent.name().to_owned()),
        address: Some(agent.stored.ip_address.to_string()),
        reason: agent.reason.map(|reason| reason.to_string()),
        ..blank(kind)
    }
}

fn blank(kind: HappeningKind) -> Happening {
    Happening {
        number: 0,
        at: DateTime::UNIX_EPOCH,
        kind,
        agent_id: None,
        agent_name: None,
        address: None,
        reason: None,
        agents: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> Refusal {
        Refusal {
            machine_name: name.to_owned(),
            remote: IpAddr::from([10, 0, 0, 1]),
            code: "wrong_secret".to_owned(),
        }
    }

    #[test]
    fn refusal_that_repeats_itself_is_told_once_in_a_while() {
        let mut chronicle = Chronicle::default();
        let at = |seconds| DateTime::UNIX_EPOCH + chrono::Duration::seconds(seconds);

        chronicle.refused(refusal("a"), at(0));
        chronicle.refused(refusal("a"), at(1));
        chronicle.refused(refusal("b"), at(2));
        chronicle.refused(refusal("a"), at(31));

        let names = |happenings: Vec<Happening>| -> Vec<Option<String>> {
            happenings.into_iter().map(|it| it.agent_name).collect()
        };
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            names(chronicle.take_news()),
            [some("a"), some("b"), some("a")]
        );
        assert_eq!(names(chronicle.take_news()), []);
        assert_eq!(names(chronicle.latest(2)), [some("a"), some("b")]);
    }

    #[test]
    fn only_the_last_thousand_are_remembered() {
        let mut chronicle = Chronicle::default();

        for _ in 0..MOST + 5 {
            let suspected = Transition::IsolationSuspected {
                overdue: 3,
                online: 4,
            };
            chronicle.note(&suspected, DateTime::UNIX_EPOCH);
        }

        let kept = chronicle.latest(usize::MAX);
        assert_eq!((kept.len(), kept[0].number), (MOST, MOST as u64 + 5));
    }
}
