//! Heartbeats: who may send them, what they change, and two processes with one id.

use std::time::Duration;

use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::view::UnroutableReason;
use ollama_coordinator_common::secret::SecretHash;
use tokio::time::Instant;

use super::super::agent::{AgentRecord, Moment};
use super::super::lease::{Lease, Terms, Trust};
use super::super::transition::Transition;
use super::AgentTable;

/// This many heartbeats that tell no epoch, of an earlier process after a later one registered,
/// prove that both live.
const PROOF_OF_LIFE: u8 = 2;
/// How long an earlier process is listened for.
const CONTEST_WINDOW: Duration = Duration::from_mins(5);

/// A renewed lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// The agent's epoch.
    pub epoch: u64,
    /// Its cadence.
    pub terms: Terms,
    /// Why it gets no requests; `None`: it does.
    pub reason: Option<UnroutableReason>,
}

/// Why a heartbeat was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// There is no such agent, or this registry is older than the agent: it must register.
    #[error("no agent has this id")]
    UnknownAgent,
    /// Another secret belongs to the id.
    #[error("the secret that belongs to this agent was not presented")]
    WrongSecret,
    /// Another live process uses the id.
    #[error("another live process uses this id")]
    DuplicateIdentity,
}

impl AgentTable {
    /// Takes a heartbeat and renews the lease.
    pub fn renew(
        &mut self,
        id: AgentId,
        secret: Option<SecretHash>,
        heartbeat: HeartbeatRequest,
        now: Moment,
    ) -> Result<Renewed, RenewError> {
        let record = self.records.get_mut(&id).ok_or(RenewError::UnknownAgent)?;
        record.prove(secret)?;
        if heartbeat
            .epoch
            .is_some_and(|epoch| epoch > record.stored.epoch)
        {
            return Err(RenewError::UnknownAgent);
        }
        let is_current = record.arbitrate(heartbeat.session, heartbeat.epoch, now.mono)?;
        // A repeated or overtaken heartbeat proves nothing new; only a session counts its own.
        let seq = heartbeat
            .seq
            .filter(|_| is_current && heartbeat.session.is_some());
        if let (Some(seq), Some(lease)) = (seq, record.lease)
            && seq <= record.seq
        {
            return Ok(record.renewed(lease.terms()));
        }
        let was = (record.unroutable(), record.trust());
        let mut news = News::Nothing;
        if is_current {
            record.seq = seq.unwrap_or(record.seq);
            record.leaving = heartbeat.draining.unwrap_or(false);
            if record.apply_pause(heartbeat.paused, now.wall) {
                news = News::Pause;
            }
            if let Some(metrics) = heartbeat.metrics {
                record.metrics = Some(metrics.into());
                news = news.max(News::Load);
            }
            if let Some(report) = heartbeat.runtime {
                news = record.news_in(&report).max(news);
                record.apply_report(report);
            }
        }
        if record.stored.left_at.is_some() {
            record.come_back();
        }
        let was_online = record.lease.is_some();
        let was_doubted = record.trust() != Some(Trust::Full);
        record.unsaved |= !was_online;
        self.save_soon |= !was_online || news >= News::Models;
        let terms = self.renew_lease(id, now.mono);
        self.settle_renewal(id, was, news, now);
        if was_doubted {
            self.schedule_reach_unless_reached(id, now.mono);
        }
        let record = self.records.get(&id).ok_or(RenewError::UnknownAgent)?;
        Ok(record.renewed(terms))
    }

    /// Grants a new lease and returns its terms.
    pub(super) fn renew_lease(&mut self, id: AgentId, now: Instant) -> Terms {
        let mut previous = None;
        if let Some(record) = self.records.get_mut(&id) {
            self.presumed -= usize::from(record.is_presumed());
            record.last_seen = Some(now);
            let lease = record.lease.filter(|lease| !lease.has_benefit_of_doubt());
            previous = lease.map(|lease| lease.terms().interval);
        }
        let terms = self.policy.terms(self.online.max(1), previous);
        let mut lease = Lease::grant(terms, now);
        // What was sent while the coordinator was away may be all that comes for a while.
        if let Some(until) = self.lenient_until {
            lease.last_until(until);
        }
        self.set_lease(id, Some(lease));
        terms
    }

    pub(super) fn settle_renewal(
        &mut self,
        id: AgentId,
        (was, was_trusted): (Option<UnroutableReason>, Option<Trust>),
        news: News,
        now: Moment,
    ) {
        let Some(record) = self.records.get(&id) else {
            return;
        };
        let is = record.unroutable();
        if matches!(was_trusted, None | Some(Trust::Kept)) {
            self.note(id, now, Transition::Returned);
        } else if was != is {
            if was == Some(UnroutableReason::RuntimeNotAnswering) {
                self.schedule_reach_unless_reached(id, now.mono);
            }
            self.note(id, now, Transition::RoutabilityChanged);
        } else {
            match news {
                News::Report | News::Models | News::Pause => {
                    self.note(id, now, Transition::Changed);
                }
                News::Load => self.note_load(id, now, Transition::Changed),
                News::Nothing if was_trusted == Some(Trust::Suspect) => self.route(id),
                News::Nothing => {}
            }
        }
    }
}

/// What a heartbeat brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    Nothing,
    Load,
    Report,
    /// Other models can be served than before.
    Models,
    /// Its owner has paused it, or ended the pause.
    Pause,
}

impl AgentRecord {
    fn news_in(&self, report: &RuntimeReport) -> News {
        let known = &self.stored.runtime;
        if known == report {
            News::Nothing
        } else if known.serves_the_same_as(report) {
            News::Report
        } else {
            News::Models
        }
    }

    fn renewed(&self, terms: Terms) -> Renewed {
        Renewed {
            epoch: self.stored.epoch,
            terms,
            reason: self.unroutable(),
        }
    }

    /// Checks that the caller may act for this agent.
    pub(super) fn prove(&self, secret: Option<SecretHash>) -> Result<(), RenewError> {
        match self.stored.secret_hash {
            Some(expected) if secret != Some(expected) => Err(RenewError::WrongSecret),
            Some(_) | None => Ok(()),
        }
    }

    /// Decides between processes that claim this id; `true` when `session` is the one that counts.
    ///
    /// A new process takes over at once, as after a crash. If the earlier one then tells the epoch
    /// that the later one was granted, it has been answered since, so that both live: the later one
    /// is refused, and the earlier one has to register again, because the record is the other's.
    /// Heartbeats that a dead process has left on their way prove nothing, however many.
    fn arbitrate(
        &mut self,
        session: Option<SessionId>,
        epoch: Option<u64>,
        now: Instant,
    ) -> Result<bool, RenewError> {
        let Some(session) = session else {
            return Ok(true);
        };
        if self.refused_session == Some(session) {
            return Err(RenewError::DuplicateIdentity);
        }
        if self.stored.session == Some(session) {
            return Ok(true);
        }
        let contest = self.contest.as_mut().filter(|contest| {
            contest.earlier == session
                && now.saturating_duration_since(contest.since) < CONTEST_WINDOW
        });
        let Some(contest) = contest else {
            return Err(RenewError::UnknownAgent);
        };
        contest.heartbeats_of_earlier = contest.heartbeats_of_earlier.saturating_add(1);
        let lives = match epoch {
            Some(epoch) => epoch == self.stored.epoch,
            None => contest.heartbeats_of_earlier >= PROOF_OF_LIFE,
        };
        if !lives {
            return Ok(false);
        }
        self.contest = None;
        self.refused_session = self.stored.session;
        Err(RenewError::UnknownAgent)
    }
}
