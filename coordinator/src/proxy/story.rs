//! What happens to one request, told step by step: for the request log, the metrics and traces.
//!
//! Metadata only: never a prompt, an answer or a secret. The steps write down moments and numbers;
//! whatever has to be formatted is when somebody reads it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::request::{Protocol, RequestOutcome};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::Dialect;
use super::{ATTEMPTS_HEADER, REQUEST_HEADER, TIMING_HEADER};
use crate::balancer::Balancer;
use crate::balancer::permit::{Outcome, Permit};
use crate::registry::Registry;

mod cancel;
pub mod figures;
mod log;
pub mod reading;
mod record;
mod spans;
pub mod times;
mod timing;
mod tokens;
pub mod trace;
pub mod view;

pub use cancel::Cancelled;
use figures::{Figures, PairFigures};
use log::Log;
use record::{Attempt, End, Progress, Record};
use tokens::Tokens;
use trace::{Exporter, Told, Trace, Tracer};

/// What Ollama answers when a request was cancelled. A client would ask again after a 5xx.
pub const CANCELLED_STATUS: u16 = 499;
/// What the log says of a request that an operator has cancelled.
const CANCELLED: &str = "cancelled by operator";

/// What of requests is remembered and told.
#[derive(Debug, Clone, Default)]
pub struct StorySettings {
    /// How many requests are remembered after their end.
    pub request_log: usize,
    /// Where traces go; `None`: there are none.
    pub traces: Option<TraceSettings>,
}

/// Where traces go.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// The collector's URL for traces.
    pub endpoint: String,
    /// How this process calls itself.
    pub service_name: String,
}

/// Begins the stories of requests and remembers the latest.
#[derive(Clone)]
pub struct Storybook(Arc<Book>);

struct Book {
    registry: Registry,
    balancer: Balancer,
    log: Log,
    figures: Figures,
    next_number: AtomicU64,
    seed: u64,
    tracer: Option<Tracer>,
    exporter: Mutex<Option<Exporter>>,
}

impl Storybook {
    /// Makes an empty book; `registry` and `balancer` know which agents and models may be counted
    /// apart.
    pub fn new(settings: StorySettings, registry: Registry, balancer: Balancer) -> Self {
        let instance = registry.instance_id().to_string();
        let traces = settings.traces.map(|traces| Tracer::new(traces, instance));
        let (tracer, exporter) = traces.unzip();
        Self(Arc::new(Book {
            registry,
            balancer,
            log: Log::new(settings.request_log),
            figures: Figures::default(),
            next_number: AtomicU64::new(0),
            seed: rand::random(),
            tracer,
            exporter: Mutex::new(exporter),
        }))
    }

    /// Begins the story of one request.
    pub fn begin(&self, method: &str, path: &str, headers: &HeaderMap, client: IpAddr) -> Story {
        let book = Arc::clone(&self.0);
        let number = book.next_number.fetch_add(1, Ordering::Relaxed);
        let record = Record::new(number, book.seed, (method, path), headers, client);
        let record = Arc::new(record);
        let tracer = book.tracer.as_ref();
        Story {
            place: book.log.begin(Arc::clone(&record)),
            trace: tracer.and_then(|_| Trace::of(headers)),
            record,
            pair: None,
            is_over: false,
            book,
        }
    }
}

#[cfg(test)]
impl Storybook {
    /// Makes a book for a test, of a registry that knows nobody.
    pub(crate) fn for_tests() -> Self {
        let store = Box::new(crate::storage::memory::MemoryStore::default());
        let (writer, _thread) = crate::storage::writer::Writer::start(store);
        let policy = crate::registry::lease::LeasePolicy {
            interval: std::time::Duration::from_secs(1),
            fixed_ttl: None,
        };
        let settings = StorySettings {
            request_log: 10,
            traces: None,
        };
        let registry = Registry::new(policy, writer, Vec::new(), None);
        let balancer = Balancer::new(
            registry.clone(),
            crate::balancer::state::Settings::default(),
        );
        Self::new(settings, registry, balancer)
    }
}

impl fmt::Debug for Storybook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storybook").finish_non_exhaustive()
    }
}

/// The story of one request. Dropped without an end, the client has left.
pub struct Story {
    book: Arc<Book>,
    record: Arc<Record>,
    /// Where the log has it.
    place: usize,
    /// Where it is counted, once an agent has answered.
    pair: Option<Arc<PairFigures>>,
    trace: Option<Box<Trace>>,
    is_over: bool,
}

/// How a story ends.
struct Ending<'a> {
    outcome: RequestOutcome,
    /// What became of the attempt that runs, if one does.
    attempt: Outcome,
    refusal: Option<(u16, &'a str)>,
    size: Option<(u64, u64)>,
    tail: &'a [&'a [u8]],
}

impl Ending<'_> {
    /// An operator wanted it, whatever broke off because of that.
    fn by_operator(self) -> Self {
        Self {
            outcome: RequestOutcome::Cancelled,
            attempt: Outcome::Cancelled,
            refusal: Some((CANCELLED_STATUS, CANCELLED)),
            ..self
        }
    }
}

impl Story {
    /// Names the request for the client: its own `x-request-id` if it is usable, else a new one.
    pub fn id(&self) -> &str {
        self.record.id.as_str()
    }

    /// Returns who hears of it when an operator cancels the request.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled::of(&self.record)
    }

    /// Waits until an operator cancels the request.
    pub fn poll_cancelled(&self, context: &mut Context<'_>) -> Poll<()> {
        self.record.cancel.poll(context)
    }

    /// The request asks for a model.
    pub fn asks_for(&mut self, dialect: Dialect, model: &str, is_streamed: bool) {
        let model = record::model(model);
        let mut progress = self.record.progress.lock();
        progress.protocol = Some(protocol(dialect));
        progress.model = model;
        progress.is_streamed = is_streamed;
    }

    /// It waits for its turn; said again when its position changes.
    pub fn queued(&mut self, position: usize) {
        let mut progress = self.record.progress.lock();
        let since = progress.waiting.map(|(since, _)| since);
        progress.waiting = Some((since.unwrap_or_else(Instant::now), position));
    }

    /// An agent was picked, and the request is sent to it.
    pub fn attempt(&mut self, permit: &mut Permit) {
        let choice = permit.take_choice();
        let candidate = permit.candidate();
        let now = Instant::now();
        let attempt = Attempt {
            agent: candidate.id,
            name: Arc::clone(&candidate.name),
            choice,
            started: now,
            end: None,
        };
        if let Some(trace) = &mut self.trace {
            trace.attempt();
        }
        let mut progress = self.record.progress.lock();
        progress.settle(now, Outcome::Cancelled);
        progress.attempts.push(attempt);
    }

    /// The attempt came to nothing, another one may follow.
    pub fn attempt_failed(&mut self, outcome: Outcome) {
        let now = Instant::now();
        let (failed, is_retry) = {
            let mut progress = self.record.progress.lock();
            let failed = progress.settle(now, outcome);
            (failed, progress.attempts.len() > 1)
        };
        if let Some(agent) = failed {
            self.book.figures.count_attempt(agent, outcome, is_retry);
        }
    }

    /// The first bytes of the body are there and go to the client with this status. `agent` says
    /// whose they are, of those that were tried; `None`: the last one's, if any was.
    pub fn answered(&mut self, status: StatusCode, agent: Option<AgentId>) {
        let now = Instant::now();
        let (protocol, model, queued, agent, is_streamed) = {
            let mut progress = self.record.progress.lock();
            progress.status = Some(status.as_u16());
            progress.answered = Some(now);
            let last = progress.attempts.last().map(|last| last.agent);
            let agent = agent.or(last);
            progress.agent = agent;
            let model = Arc::clone(&progress.model);
            let is_streamed = progress.is_streamed;
            (
                progress.protocol,
                model,
                progress.queued,
                agent,
                is_streamed,
            )
        };
        let (Some(protocol), Some(agent)) = (protocol, agent) else {
            return;
        };
        let pair = self.book.figures.pair(&model, agent);
        let first_byte = now - self.record.started;
        if is_streamed && status.is_success() {
            self.book.figures.count_first_token(first_byte);
        }
        pair.count_answer(protocol, status.as_u16(), (queued, first_byte));
        self.pair = Some(pair);
    }

    /// Tells the client in headers what its request is called, how many agents were asked and how
    /// long each step took: the wait, and from sending the request to the first byte.
    pub fn describe(&self, headers: &mut HeaderMap) {
        let (attempts, queue, attempt) = {
            let progress = self.record.progress.lock();
            let until = progress.answered.unwrap_or_else(Instant::now);
            let attempt = progress.answering().map(|attempt| {
                let ended = attempt.end.map_or(until, |(at, _)| at);
                ended.min(until) - attempt.started
            });
            (progress.attempts.len(), progress.queued(until), attempt)
        };
        headers.reserve(3);
        let id = HeaderValue::from_str(self.id()).expect("an id is a header value");
        headers.insert(REQUEST_HEADER, id);
        let attempts = match attempts {
            1 => HeaderValue::from_static("1"),
            other => HeaderValue::from(other),
        };
        headers.insert(ATTEMPTS_HEADER, attempts);
        headers.insert(
            TIMING_HEADER,
            timing::header(queue, attempt.unwrap_or_default()),
        );
    }

    /// Adds to the headers of the upstream request those that join traces.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(trace) = &self.trace {
            trace.mark(headers);
        }
    }

    /// The answer has ended. `tail` holds the ends of its last two chunks, in which runtimes say
    /// how many tokens there were.
    pub fn ended(mut self, outcome: Outcome, bytes: u64, chunks: u64, tail: [&[u8]; 2]) {
        self.finish(Ending {
            outcome: match outcome {
                Outcome::Success => RequestOutcome::Success,
                Outcome::Failure(_) => RequestOutcome::Failed,
                Outcome::Cancelled => RequestOutcome::Cancelled,
            },
            attempt: outcome,
            refusal: None,
            size: Some((bytes, chunks)),
            tail: &tail,
        });
    }

    /// No agent answered; the client gets this status from the coordinator itself. `reason` is one
    /// of a few words for metrics, `message` is kept in the log and must not quote the request.
    pub fn refused(mut self, status: StatusCode, reason: &'static str, message: &str) {
        self.book.figures.count_refusal(reason);
        self.finish(Ending {
            outcome: RequestOutcome::Refused,
            attempt: Outcome::Cancelled,
            refusal: Some((status.as_u16(), message)),
            size: None,
            tail: &[],
        });
    }

    fn finish(&mut self, mut ending: Ending<'_>) {
        self.is_over = true;
        if self.record.cancel.is_wanted() && ending.outcome != RequestOutcome::Success {
            ending = ending.by_operator();
        }
        let now = Instant::now();
        let message = ending.refusal.map(|(_, message)| record::message(message));
        let (attempted, is_retry, tokens) = {
            let mut progress = self.record.progress.lock();
            let tokens = tokens(&progress, &ending);
            let attempted = progress.settle(now, ending.attempt);
            progress.status = progress.status.or(ending.refusal.map(|(status, _)| status));
            progress.end = Some(End {
                at: now,
                outcome: ending.outcome,
                message: message.unwrap_or_default(),
                size: ending.size,
                tokens,
            });
            (attempted, progress.attempts.len() > 1, tokens)
        };
        match (&self.pair, attempted) {
            (Some(pair), Some(_)) => pair.count_attempt(ending.attempt, is_retry),
            (None, Some(agent)) => {
                let figures = &self.book.figures;
                figures.count_attempt(agent, ending.attempt, is_retry);
            }
            (_, None) => {}
        }
        if let Some(pair) = &self.pair {
            pair.count_end(now - self.record.started, tokens);
        }
        if let (Some(tracer), Some(trace)) = (&self.book.tracer, self.trace.take()) {
            let record = Arc::clone(&self.record);
            tracer.end(Told { record, trace });
        }
        let record = Arc::clone(&self.record);
        self.book.log.end(self.place, record);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if !self.is_over {
            self.finish(Ending {
                outcome: RequestOutcome::Cancelled,
                attempt: Outcome::Cancelled,
                refusal: None,
                size: None,
                tail: &[],
            });
        }
    }
}

impl fmt::Debug for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id();
        f.debug_struct("Story")
            .field("id", &id)
            .finish_non_exhaustive()
    }
}

/// Only a whole answer has counts at its end.
fn tokens(progress: &Progress, ending: &Ending<'_>) -> Tokens {
    match (progress.protocol, ending.outcome) {
        (Some(protocol), RequestOutcome::Success) => tokens::count(protocol, ending.tail),
        (_, _) => Tokens::default(),
    }
}

fn protocol(dialect: Dialect) -> Protocol {
    match dialect {
        Dialect::Ollama => Protocol::Ollama,
        Dialect::OpenAi => Protocol::OpenAi,
        Dialect::Anthropic => Protocol::Anthropic,
    }
}

#[cfg(test)]
mod tests;
