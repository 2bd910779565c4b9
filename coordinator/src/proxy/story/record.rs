//! What is kept of one request. Written step by step, formatted only when somebody reads it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, header};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::request::{Protocol, RequestOutcome, RequestState};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::cancel::Cancel;
use super::tokens::Tokens;
use crate::balancer::choice::Choice;
use crate::balancer::permit::Outcome;

/// The header that names a request.
pub(super) const ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
const DIGITS: &[u8; 16] = b"0123456789abcdef";
const MAX_ID: usize = 64;
const MAX_PATH: usize = 200;
const MAX_MODEL: usize = 200;
const MAX_MESSAGE: usize = 300;
/// Where clients put their keys.
const KEY_HEADERS: [HeaderName; 2] = [header::AUTHORIZATION, HeaderName::from_static("x-api-key")];

/// One request.
#[derive(Debug)]
pub(super) struct Record {
    /// Counts the requests of this process.
    pub(super) number: u64,
    pub(super) id: Id,
    pub(super) started: Instant,
    pub(super) client: IpAddr,
    pub(super) has_key: bool,
    pub(super) method: Cow<'static, str>,
    pub(super) path: Cow<'static, str>,
    pub(super) cancel: Cancel,
    pub(super) progress: Mutex<Progress>,
}

/// How a request is called.
#[derive(Debug)]
pub(super) enum Id {
    /// By its client.
    Given(Box<str>),
    /// By us, in hexadecimal digits.
    Made([u8; 16]),
}

/// What changes while a request runs.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) protocol: Option<Protocol>,
    pub(super) model: Arc<str>,
    pub(super) is_streamed: bool,
    /// Since when it waits, and in which position.
    pub(super) waiting: Option<(Instant, usize)>,
    /// How long it waited before.
    pub(super) queued: Duration,
    pub(super) attempts: Attempts,
    /// Whose answer the client gets.
    pub(super) agent: Option<AgentId>,
    pub(super) status: Option<u16>,
    pub(super) answered: Option<Instant>,
    pub(super) end: Option<End>,
}

/// The tries at agents, in order; the first one, mostly the only one, has its place without an
/// allocation.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    first: Option<Attempt>,
    further: Vec<Attempt>,
}

/// One try at an agent.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) agent: AgentId,
    pub(super) name: Arc<str>,
    pub(super) choice: Choice,
    pub(super) started: Instant,
    pub(super) end: Option<(Instant, Outcome)>,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct End {
    pub(super) at: Instant,
    pub(super) outcome: RequestOutcome,
    pub(super) message: Box<str>,
    /// Bytes and chunks of the answer, when they were counted.
    pub(super) size: Option<(u64, u64)>,
    pub(super) tokens: Tokens,
}

impl Record {
    pub(super) fn new(
        number: u64,
        seed: u64,
        (method, path): (&str, &str),
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Self {
        Self {
            number,
            id: Id::of(headers).unwrap_or_else(|| Id::made(number, seed)),
            started: Instant::now(),
            client,
            has_key: KEY_HEADERS.iter().any(|name| headers.contains_key(name)),
            method: known_method(method),
            path: known_path(path),
            cancel: Cancel::default(),
            progress: Mutex::default(),
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.progress.lock().end.is_some()
    }
}

impl Id {
    /// Takes the client's, when it is one that can be shown and searched for as it is.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let id = headers.get(ID_HEADER)?.to_str().ok()?;
        let is_usable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_usable = (1..=MAX_ID).contains(&id.len()) && id.bytes().all(is_usable);
        is_usable.then(|| Self::Given(id.into()))
    }

    /// Makes one that no other request of this process has: the steps are those of `SplitMix64`,
    /// each of which can be undone.
    fn made(number: u64, seed: u64) -> Self {
        let mut mixed = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let mut hex = [0; 16];
        for (digits, byte) in hex.chunks_exact_mut(2).zip(mixed.to_be_bytes()) {
            digits[0] = DIGITS[usize::from(byte >> 4)];
            digits[1] = DIGITS[usize::from(byte & 0xf)];
        }
        Self::Made(hex)
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Given(id) => id,
            Self::Made(hex) => str::from_utf8(hex).expect("hexadecimal digits are text"),
        }
    }
}

impl Progress {
    pub(super) fn state(&self) -> RequestState {
        if self.end.is_some() {
            RequestState::Ended
        } else if self.answered.is_some() {
            RequestState::Streaming
        } else if self.waiting.is_some() {
            RequestState::Queued
        } else if self.attempts.first.is_some() {
            RequestState::Attempting
        } else {
            RequestState::Arriving
        }
    }

    /// Returns how long it has waited for its turn, until `now`.
    pub(super) fn queued(&self, now: Instant) -> Duration {
        let waiting = self.waiting.map(|(since, _)| now - since);
        self.queued + waiting.unwrap_or_default()
    }

    /// Returns the attempt whose answer the client gets, else the last one.
    pub(super) fn answering(&self) -> Option<&Attempt> {
        let mut answering = self.attempts.iter();
        let answering = answering.rfind(|attempt| Some(attempt.agent) == self.agent);
        answering.or(self.attempts.last())
    }

    /// Ends the wait and the attempt that run; returns the agent of that attempt.
    pub(super) fn settle(&mut self, now: Instant, outcome: Outcome) -> Option<AgentId> {
        self.queued = self.queued(now);
        self.waiting = None;
        let attempt = self.attempts.last_mut()?;
        let was_running = attempt.end.is_none();
        attempt.end.get_or_insert((now, outcome));
        was_running.then_some(attempt.agent)
    }
}

impl Attempts {
    pub(super) fn push(&mut self, attempt: Attempt) {
        if self.first.is_none() {
            self.first = Some(attempt);
        } else {
            self.further.push(attempt);
        }
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.further.len()
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.first.iter().chain(&self.further)
    }

    pub(super) fn last(&self) -> Option<&Attempt> {
        self.further.last().or(self.first.as_ref())
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Attempt> {
        self.further.last_mut().or(self.first.as_mut())
    }
}

pub(super) fn model(text: &str) -> Arc<str> {
    clipped(text, MAX_MODEL).into()
}

pub(super) fn message(text: &str) -> Box<str> {
    clipped(text, MAX_MESSAGE).into()
}

fn clipped(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

/// Names the common methods without an allocation.
fn known_method(method: &str) -> Cow<'static, str> {
    let known = ["POST", "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"];
    match known.into_iter().find(|known| *known == method) {
        Some(known) => Cow::Borrowed(known),
        None => Cow::Owned(clipped(method, MAX_ID).to_owned()),
    }
}

/// Names the common paths without an allocation, and any without its query.
fn known_path(path: &str) -> Cow<'static, str> {
    let path = path.split_once('?').map_or(path, |(path, _query)| path);
    Cow::Borrowed(match path {
        "/api/chat" => "/api/chat",
        "/api/generate" => "/api/generate",
        "/api/embed" => "/api/embed",
        "/api/embeddings" => "/api/embeddings",
        "/api/show" => "/api/show",
        "/v1/chat/completions" => "/v1/chat/completions",
        "/v1/completions" => "/v1/completions",
        "/v1/responses" => "/v1/responses",
        "/v1/embeddings" => "/v1/embeddings",
        "/v1/messages" => "/v1/messages",
        other => return Cow::Owned(clipped(other, MAX_PATH).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    fn named(id: &[u8]) -> Record {
        let mut headers = HeaderMap::new();
        headers.insert(ID_HEADER, HeaderValue::from_bytes(id).unwrap());
        Record::new(7, 1, ("POST", "/api/chat"), &headers, [127, 0, 0, 1].into())
    }

    #[rstest]
    #[case(b"a")]
    #[case(b"0192.AZ_az-09")]
    #[case(&[b'x'; 64])]
    fn usable_id_of_a_client_is_kept(#[case] id: &[u8]) {
        assert_eq!(named(id).id.as_str().as_bytes(), id);
    }

    #[rstest]
    #[case(b"")]
    #[case(b"two words")]
    #[case(b"../etc")]
    #[case(b"\xff")]
    #[case(&[b'x'; 65])]
    fn unusable_id_is_replaced(#[case] id: &[u8]) {
        let record = named(id);

        let made = record.id.as_str();
        assert_eq!(made.len(), 16);
        assert!(made.bytes().all(|byte| byte.is_ascii_hexdigit()), "{made}");
    }

    #[test]
    fn made_ids_differ() {
        let ids = (0..10_000).map(|number| Id::made(number, 42).as_str().to_owned());

        assert_eq!(ids.collect::<HashSet<_>>().len(), 10_000);
    }

    #[rstest]
    #[case("/api/chat", "/api/chat")]
    #[case("/api/chat?key=secret", "/api/chat")]
    #[case("/api/blobs/sha256:12", "/api/blobs/sha256:12")]
    fn path_is_kept_without_its_query(#[case] path: &str, #[case] expected: &str) {
        assert_eq!(known_path(path), expected);
    }

    #[test]
    fn long_texts_are_clipped_between_characters() {
        let text = "é".repeat(1_000);

        assert_eq!(known_path(&text).len(), MAX_PATH);
        assert_eq!(&*model(&format!("x{text}")), format!("x{}", "é".repeat(99)));
    }
}
