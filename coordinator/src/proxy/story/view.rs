//! A request as the API shows it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::request::{
    AttemptView, ChoiceView, ConsideredView, RequestOutcome, RequestState, RequestView,
};
use tokio::time::Instant;

use super::record::{Attempt, Record};
use crate::balancer::choice::{Choice, Considered, Fits};
use crate::balancer::permit::{Failure, Outcome};
use crate::registry::agent::Moment;
use crate::registry::snapshot::model_key;

/// Which requests to show.
#[derive(Debug, Default)]
pub struct Filter {
    /// Only those that asked for this model, under its full name or without `:latest`.
    pub model: Option<String>,
    /// Only those that were sent to this agent.
    pub agent: Option<AgentId>,
    /// Only those that ended so.
    pub outcome: Option<RequestOutcome>,
    /// Only those that run.
    pub is_live: bool,
}

impl Filter {
    /// Returns whether it lets a request pass.
    pub(super) fn takes(&self, record: &Record) -> bool {
        let progress = record.progress.lock();
        let is_of_model = |model: &str| model_key(&progress.model) == model_key(model);
        let was_sent_to = |agent| {
            progress
                .attempts
                .iter()
                .any(|attempt| attempt.agent == agent)
        };
        let outcome = progress.end.as_ref().map(|end| end.outcome);
        self.model.as_deref().is_none_or(is_of_model)
            && self.agent.is_none_or(was_sent_to)
            && (self.outcome.is_none() || self.outcome == outcome)
            && !(self.is_live && outcome.is_some())
    }
}

/// Shows a request as it is `now`.
pub(super) fn request(record: &Record, now: Moment) -> RequestView {
    let progress = record.progress.lock();
    let end = progress.end.as_ref();
    let until = end.map_or(now.mono, |end| end.at);
    let since_start = |at: Instant| millis(at.saturating_duration_since(record.started));
    let attempts = progress.attempts.iter();
    let state = progress.state();
    RequestView {
        id: record.id.as_str().to_owned(),
        started_at: wall(record.started, now),
        client: record.client,
        has_key: record.has_key,
        method: record.method.clone().into_owned(),
        path: record.path.clone().into_owned(),
        protocol: progress.protocol,
        model: some_text(&progress.model),
        streamed: progress.is_streamed,
        state,
        position: progress
            .waiting
            .filter(|_| state == RequestState::Queued)
            .map(|(_, position)| position),
        outcome: end.map(|end| end.outcome),
        status: progress.status,
        message: end.and_then(|end| some_text(&end.message)),
        agent_id: progress.agent,
        attempts: attempts
            .map(|made| attempt(made, record.started, until))
            .collect(),
        queue_ms: millis(progress.queued(until)),
        first_byte_ms: progress.answered.map(since_start),
        duration_ms: since_start(until),
        bytes: end.and_then(|end| end.size).map(|(bytes, _)| bytes),
        chunks: end.and_then(|end| end.size).map(|(_, chunks)| chunks),
        prompt_tokens: end.and_then(|end| end.tokens.prompt),
        completion_tokens: end.and_then(|end| end.tokens.completion),
    }
}

fn attempt(attempt: &Attempt, started: Instant, until: Instant) -> AttemptView {
    let ended = attempt.end.map_or(until, |(at, _)| at);
    let outcome = attempt.end.map(|(_, outcome)| outcome);
    AttemptView {
        agent_id: attempt.agent,
        agent_name: attempt.name.to_string(),
        started_after_ms: millis(attempt.started.saturating_duration_since(started)),
        duration_ms: millis(ended.saturating_duration_since(attempt.started)),
        outcome: outcome.map(|outcome| word(outcome).to_owned()),
        failure_status: outcome.and_then(failure_status),
        choice: choice(&attempt.choice),
    }
}

/// The one place that shows a [`Choice`].
fn choice(choice: &Choice) -> ChoiceView {
    ChoiceView {
        policy: choice.policy.to_string(),
        reason: choice.reason.to_string(),
        queued_ms: millis(choice.queued),
        candidates: choice.candidates,
        considered: choice.considered.iter().map(considered).collect(),
    }
}

fn considered(considered: &Considered) -> ConsideredView {
    ConsideredView {
        agent_id: considered.agent.id,
        agent_name: considered.agent.name.to_string(),
        in_flight: considered.in_flight,
        capacity: considered.capacity,
        warm: considered.warm,
        fits: match considered.fits {
            Fits::No => Some(false),
            Fits::Unknown => None,
            Fits::Yes => Some(true),
        },
        slowness: considered.slowness,
        score: considered.score,
        why_not: considered.why_not.map(|why_not| why_not.to_string()),
    }
}

/// Every word for what became of an attempt, in the order of [`index`].
pub(super) const WORDS: [&str; 10] = [
    "success",
    "cancelled",
    "not_connected",
    "broken",
    "silent",
    "stalled",
    "status",
    "busy",
    "no_model",
    "no_route",
];

/// Returns where the outcome stands in [`WORDS`].
pub(super) fn index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Success => 0,
        Outcome::Cancelled => 1,
        Outcome::Failure(Failure::NotConnected) => 2,
        Outcome::Failure(Failure::Broken) => 3,
        Outcome::Failure(Failure::Silent) => 4,
        Outcome::Failure(Failure::Stalled) => 5,
        Outcome::Failure(Failure::Status(_)) => 6,
        Outcome::Failure(Failure::Busy) => 7,
        Outcome::Failure(Failure::NoModel) => 8,
        Outcome::Failure(Failure::NoRoute) => 9,
    }
}

pub(super) fn word(outcome: Outcome) -> &'static str {
    WORDS[index(outcome)]
}

fn failure_status(outcome: Outcome) -> Option<u16> {
    match outcome {
        Outcome::Failure(Failure::Status(status)) => Some(status),
        Outcome::Success | Outcome::Cancelled | Outcome::Failure(_) => None,
    }
}

/// Returns the time of day of a moment, counted back from now.
pub(super) fn wall(at: Instant, now: Moment) -> DateTime<Utc> {
    now.wall - now.mono.saturating_duration_since(at)
}

fn some_text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
