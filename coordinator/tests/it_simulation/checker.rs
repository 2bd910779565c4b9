//! What must hold at every moment, judged from what was promised and what is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ollama_coordinator::registry::registration::Granted;
use ollama_coordinator::registry::snapshot::AgentSnapshot;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::view::AgentStatus;

/// The reaper looks five times a second.
const SLACK: Duration = Duration::from_millis(600);
/// How many TTLs a runtime that answers stands for its silent agent.
const KEPT_FOR: u32 = 5;

/// A rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// What was acknowledged is there, whatever broke.
    AcknowledgedIsKept,
    /// An epoch never goes back, and each session has its own.
    EpochsGrow,
    /// Nobody is online long after his last word.
    SilenceEndsOnline,
    /// Nobody whose words arrive is taken offline.
    WordsKeepOnline,
    /// Who said goodbye is offline until he speaks again.
    GoodbyeHolds,
    /// An identity is given up only when another process uses it.
    IdentityIsKept,
    /// Nobody is refused who has the secret.
    SecretsAreKnown,
    /// The counts are those of what is counted.
    CountsAgree,
    /// When the faults are over, whoever lives is online, as himself, with what he serves.
    LivingComeBack,
    /// When the faults are over, whoever is dead is offline.
    DeadAreOffline,
}

/// What one run of the coordinator owes an agent.
#[derive(Debug, Clone, Default)]
struct Word {
    /// When it was last heard of.
    heard: Option<Duration>,
    /// When its runtime last answered.
    answered: Option<Duration>,
    /// When its tunnel last ended.
    tunnel_closed: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Promise {
    epoch: u64,
    session: Option<SessionId>,
    note: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    pub(crate) violations: Vec<Violation>,
    promises: BTreeMap<AgentId, Promise>,
    gone: BTreeSet<AgentId>,
    words: BTreeMap<AgentId, Word>,
    /// The TTL that each agent was granted last.
    ttls: BTreeMap<AgentId, Duration>,
    /// Agents that an operator wants forgotten, which may be durable before it is acknowledged.
    doomed: BTreeSet<AgentId>,
    /// Identities that more than one machine has or had.
    shared: BTreeSet<AgentId>,
    started: Duration,
    grace: Duration,
    resumed: Option<Duration>,
    /// For how long nobody may be taken offline after the last pause.
    pause_grace: Duration,
    longest_ttl: Duration,
    pub(crate) totals: Totals,
}

/// How much was tried.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    pub(crate) machines: u64,
    pub(crate) events: u64,
    pub(crate) faults: u64,
    pub(crate) grants: u64,
    pub(crate) words: u64,
    pub(crate) starts: u64,
    pub(crate) expired: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.machines += other.machines;
        self.events += other.events;
        self.faults += other.faults;
        self.grants += other.grants;
        self.words += other.words;
        self.starts += other.starts;
        self.expired += other.expired;
    }
}

impl Checker {
    pub(crate) fn report(&mut self, rule: Rule, detail: String) {
        self.violations.push(Violation { rule, detail });
    }

    pub(crate) fn coordinator_started(&mut self, at: Duration, grace: Duration, ttl: Duration) {
        self.started = at;
        self.grace = grace;
        self.resumed = None;
        self.longest_ttl = self.longest_ttl.max(ttl);
        self.words.clear();
        self.totals.starts += 1;
    }

    pub(crate) fn coordinator_died(&mut self) {
        for id in std::mem::take(&mut self.doomed) {
            self.promises.remove(&id);
        }
    }

    pub(crate) fn coordinator_paused(&mut self, at: Duration, grace: Duration) {
        self.resumed = Some(at);
        self.pause_grace = grace;
    }

    pub(crate) fn identity_shared(&mut self, id: AgentId) {
        self.shared.insert(id);
    }

    pub(crate) fn heard(&mut self, id: AgentId, at: Duration) {
        self.totals.words += 1;
        self.gone.remove(&id);
        self.words.entry(id).or_default().heard = Some(at);
    }

    pub(crate) fn runtime_answered(&mut self, id: AgentId, at: Duration) {
        self.words.entry(id).or_default().answered = Some(at);
    }

    pub(crate) fn tunnel_closed(&mut self, id: AgentId, at: Duration) {
        self.words.entry(id).or_default().tunnel_closed = Some(at);
    }

    pub(crate) fn granted(&mut self, granted: Granted, session: Option<SessionId>) {
        self.totals.grants += 1;
        let Granted {
            id, epoch, terms, ..
        } = granted;
        self.ttls.insert(id, terms.ttl);
        self.longest_ttl = self.longest_ttl.max(terms.ttl);
        let before = self.promises.get(&id).copied();
        if let Some(before) = before {
            let is_reused =
                before.epoch == epoch && before.session != session && !self.shared.contains(&id);
            if before.epoch > epoch || is_reused {
                let detail = format!("{id} was granted {epoch} after {}", before.epoch);
                self.report(Rule::EpochsGrow, detail);
            }
        }
        self.promises.insert(
            id,
            Promise {
                epoch,
                session,
                note: before.and_then(|before| before.note),
            },
        );
    }

    pub(crate) fn patched(&mut self, id: AgentId, note: u64) {
        if let Some(promise) = self.promises.get_mut(&id) {
            promise.note = Some(note);
        }
    }

    pub(crate) fn removal_wanted(&mut self, id: AgentId) {
        self.doomed.insert(id);
    }

    pub(crate) fn removed(&mut self, id: AgentId) {
        self.doomed.remove(&id);
        self.promises.remove(&id);
        self.gone.remove(&id);
        self.words.remove(&id);
    }

    pub(crate) fn left(&mut self, id: AgentId) {
        self.gone.insert(id);
    }

    pub(crate) fn identity_given_up(&mut self, id: AgentId) {
        if !self.shared.contains(&id) {
            self.report(
                Rule::IdentityIsKept,
                format!("{id} was given up, and nobody else used it"),
            );
        }
    }

    /// Judges that an agent was taken offline for its silence.
    pub(crate) fn expired(&mut self, id: AgentId, at: Duration) {
        self.totals.expired += 1;
        let word = self.words.get(&id).cloned().unwrap_or_default();
        let ttl = self.ttls.get(&id).copied().unwrap_or_default();
        let since_start = at.saturating_sub(self.started);
        if word.heard.is_none() && since_start < self.grace {
            self.report(
                Rule::WordsKeepOnline,
                format!("{id} was taken offline {since_start:?} after a start"),
            );
        }
        let Some(heard) = word.heard else { return };
        let has_lost_its_tunnel = word.tunnel_closed.is_some_and(|closed| closed >= heard);
        let silent = at.saturating_sub(heard);
        if silent < ttl && !has_lost_its_tunnel {
            self.report(
                Rule::WordsKeepOnline,
                format!("{id} was taken offline {silent:?} after its last word, TTL {ttl:?}"),
            );
        }
        let after_pause = self.resumed.map(|resumed| at.saturating_sub(resumed));
        if let Some(after) = after_pause.filter(|_| !has_lost_its_tunnel)
            && after < self.pause_grace
        {
            self.report(
                Rule::WordsKeepOnline,
                format!("{id} was taken offline {after:?} after a pause of the coordinator"),
            );
        }
    }

    /// Compares all agents with what was promised.
    pub(crate) fn look(&mut self, agents: &[AgentSnapshot], online: usize, at: Duration) {
        let seen: BTreeMap<AgentId, &AgentSnapshot> =
            agents.iter().map(|agent| (agent.id(), agent)).collect();
        let mut found = Vec::new();
        for (id, promise) in &self.promises {
            found.extend(broken_promise(*id, promise, seen.get(id).copied()));
        }
        let is_online = |agent: &&AgentSnapshot| agent.status == AgentStatus::Online;
        let counted = agents.iter().filter(is_online).count();
        if counted != online {
            let detail = format!("{online} are counted as online, {counted} are");
            found.push((Rule::CountsAgree, detail));
        }
        for agent in agents.iter().filter(is_online) {
            let id = agent.id();
            if self.gone.contains(&id) {
                found.push((
                    Rule::GoodbyeHolds,
                    format!("{id} is online after its goodbye"),
                ));
            }
            if let Some(silence) = self.undue_silence(id, at) {
                let detail = format!("{id} is online after {silence:?} of silence");
                found.push((Rule::SilenceEndsOnline, detail));
            }
        }
        for (rule, detail) in found {
            self.report(rule, detail);
        }
    }

    /// Returns for how long an agent was silent, when that is too long to be online.
    fn undue_silence(&self, id: AgentId, at: Duration) -> Option<Duration> {
        let ttl = self.longest_ttl;
        let word = self.words.get(&id).cloned().unwrap_or_default();
        // Everything may be prolonged by one TTL, when most of the fleet is silent.
        let from_start = self.started + self.grace + ttl;
        let from_pause = self
            .resumed
            .map(|resumed| resumed + ttl.max(self.pause_grace) + ttl);
        let from_word = word.heard.map(|heard| heard + ttl * 2);
        let base = [Some(from_start), from_pause, from_word]
            .into_iter()
            .flatten()
            .max()?;
        // An answer of the runtime stands for the agent until one TTL later, a few times.
        let from_answer = word
            .answered
            .map(|answered| (answered + ttl * 2).min(base + ttl * (KEPT_FOR + 1)));
        let until = base.max(from_answer.unwrap_or_default()) + SLACK;
        (at > until).then(|| at.saturating_sub(word.heard.unwrap_or(self.started)))
    }
}

fn broken_promise(
    id: AgentId,
    promise: &Promise,
    agent: Option<&AgentSnapshot>,
) -> Option<(Rule, String)> {
    let Some(agent) = agent else {
        return Some((
            Rule::AcknowledgedIsKept,
            format!("{id} was acknowledged and is not there"),
        ));
    };
    if agent.stored.epoch < promise.epoch {
        let detail = format!(
            "{id} has epoch {} and was promised {}",
            agent.stored.epoch, promise.epoch
        );
        return Some((Rule::EpochsGrow, detail));
    }
    let note = agent
        .stored
        .notes
        .as_deref()
        .and_then(|text| text.parse::<u64>().ok());
    (note < promise.note).then(|| {
        let detail = format!("{id} has note {note:?} and was promised {:?}", promise.note);
        (Rule::AcknowledgedIsKept, detail)
    })
}
