//! From the record of a request to its spans: one of the request, below it the wait and each
//! attempt.

use std::time::SystemTime;

use ollama_coordinator_common::protocol::request::RequestOutcome;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

use super::record::{Attempt, End, Progress, Record};
use super::trace::{Told, Trace, new_span_id};
use super::view::{wall, word};
use crate::balancer::permit::Outcome;
use crate::registry::agent::Moment;

const SCOPE: &str = "ollama-coordinator";
const SERVER_ERROR: u16 = 500;

/// Makes the spans of a request that is over.
pub(super) fn spans(told: &Told) -> Vec<SpanData> {
    let Told { record, trace } = told;
    let progress = record.progress.lock();
    let maker = Maker {
        trace,
        now: Moment::now(),
    };
    let end = progress.end.as_ref().map_or(maker.now.mono, |end| end.at);
    let mut spans = vec![maker.request(record, &progress, end)];
    if !progress.queued.is_zero() {
        let waited_until = progress.attempts.iter().next();
        let waited_until = waited_until.map_or(end, |attempt| attempt.started);
        let since = waited_until - progress.queued;
        let kind = SpanKind::Internal;
        spans.push(maker.child("queue", kind, new_span_id(), (since, waited_until)));
    }
    let attempts = progress.attempts.iter().zip(&trace.attempts);
    spans.extend(attempts.map(|(attempt, id)| maker.attempt(attempt, *id, end)));
    spans
}

struct Maker<'a> {
    trace: &'a Trace,
    now: Moment,
}

impl Maker<'_> {
    fn request(&self, record: &Record, progress: &Progress, end: Instant) -> SpanData {
        let name = format!("{} {}", record.method, record.path);
        let times = (record.started, end);
        let mut span = self.child(name, SpanKind::Server, self.trace.span, times);
        span.parent_span_id = self.trace.parent.span_id();
        span.parent_span_is_remote = self.trace.parent.is_valid();
        let mut add = |key: &'static str, value: Option<Value>| {
            span.attributes
                .extend(value.map(|value| KeyValue::new(key, value)));
        };
        let text = |text: &str| (!text.is_empty()).then(|| Value::from(text.to_owned()));
        let count = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
        add("http.request.method", text(&record.method));
        add("url.path", text(&record.path));
        add("client.address", text(&record.client.to_string()));
        let status = progress.status.map(|status| i64::from(status).into());
        add("http.response.status_code", status);
        add("gen_ai.request.model", text(&progress.model));
        add("ollama_coordinator.request.id", text(record.id.as_str()));
        let agent = progress.answering().map(|made| made.agent.to_string());
        add("ollama_coordinator.agent.id", agent.map(Value::from));
        if let Some(end) = &progress.end {
            let tokens = end.tokens;
            add(
                "gen_ai.usage.input_tokens",
                count(tokens.prompt).map(Value::from),
            );
            add(
                "gen_ai.usage.output_tokens",
                count(tokens.completion).map(Value::from),
            );
            add(
                "ollama_coordinator.outcome",
                Some(outcome_word(end.outcome).into()),
            );
            span.status = status_of(progress, end);
        }
        span
    }

    fn attempt(&self, attempt: &Attempt, id: SpanId, end: Instant) -> SpanData {
        let (ended, outcome) = attempt.end.unwrap_or((end, Outcome::Cancelled));
        let times = (attempt.started, ended);
        let mut span = self.child("attempt", SpanKind::Client, id, times);
        let agent = attempt.agent.to_string();
        span.attributes = vec![
            KeyValue::new("ollama_coordinator.agent.id", agent),
            KeyValue::new("ollama_coordinator.agent.name", attempt.name.to_string()),
            KeyValue::new("ollama_coordinator.outcome", word(outcome)),
        ];
        if let Outcome::Failure(_) = outcome {
            span.attributes
                .push(KeyValue::new("error.type", word(outcome)));
            span.status = Status::error(word(outcome));
        }
        span
    }

    fn child(
        &self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        kind: SpanKind,
        id: SpanId,
        (from, until): (Instant, Instant),
    ) -> SpanData {
        let state = self.trace.parent.trace_state().clone();
        let time = |at| SystemTime::from(wall(at, self.now));
        SpanData {
            span_context: SpanContext::new(self.trace.id, id, TraceFlags::SAMPLED, false, state),
            parent_span_id: self.trace.span,
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: time(from),
            end_time: time(until),
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder(SCOPE)
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

fn outcome_word(outcome: RequestOutcome) -> &'static str {
    match outcome {
        RequestOutcome::Success => "success",
        RequestOutcome::Failed => "failed",
        RequestOutcome::Cancelled => "cancelled",
        RequestOutcome::Refused => "refused",
    }
}

/// A client's own mistake is no error of the server.
fn status_of(progress: &Progress, end: &End) -> Status {
    match end.outcome {
        RequestOutcome::Failed => {
            let last = progress.attempts.last().and_then(|attempt| attempt.end);
            Status::error(last.map_or("", |(_, outcome)| word(outcome)))
        }
        RequestOutcome::Refused if progress.status >= Some(SERVER_ERROR) => {
            Status::error(end.message.to_string())
        }
        RequestOutcome::Success | RequestOutcome::Cancelled | RequestOutcome::Refused => {
            Status::Unset
        }
    }
}
