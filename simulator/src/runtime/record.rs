//! What a scripted runtime has seen: counters and the most recent requests, for tests.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use serde_json::{Map, json};

use super::engine::Engine;
use super::wire::AnswerBody;

const RECENT_REQUESTS: usize = 256;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// Its method.
    pub method: Method,
    /// Its target: path and query.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
}

/// Counters since the runtime started.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) requests: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) cancelled: AtomicU64,
    pub(super) loads: AtomicU64,
    /// Set while the runtime itself breaks its connections, which no client is to be blamed for.
    pub(super) is_hanging_up: AtomicBool,
    recent: Mutex<VecDeque<RecordedRequest>>,
}

impl Record {
    /// Keeps a request and forgets the oldest one above the limit.
    pub(super) fn keep(&self, request: RecordedRequest) {
        let mut recent = self.recent.lock();
        if recent.len() == RECENT_REQUESTS {
            recent.pop_front();
        }
        recent.push_back(request);
    }

    /// Returns the most recent requests, oldest first.
    pub(super) fn recent(&self) -> Vec<RecordedRequest> {
        self.recent.lock().iter().cloned().collect()
    }
}

/// Where a runtime tells what it has seen, to tests in other processes. Not counted itself.
pub(super) const PATH: &str = "/simulated/record";

/// Returns the counters and the most recent requests as JSON.
pub(super) fn page(engine: &Engine) -> Response<AnswerBody> {
    let record = &engine.record;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let recent = record.recent().into_iter().map(|request| {
        let headers = request.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), json!(text(value.as_bytes()))));
        json!({
            "method": request.method.as_str(),
            "uri": request.uri.to_string(),
            "headers": headers.collect::<Map<_, _>>(),
            "body": text(&request.body),
        })
    });
    let page = json!({
        "requests": count(&record.requests),
        "in_flight": count(&record.in_flight),
        "queued": engine.queued(),
        "cancelled": count(&record.cancelled),
        "loads": count(&record.loads),
        "recent": recent.collect::<Vec<_>>(),
    });
    Response::new(Full::new(Bytes::from(page.to_string())).boxed_unsync())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Counts one request as in flight until it is dropped; dropped before it is answered, the
/// request counts as cancelled by its client.
#[derive(Debug)]
pub(super) struct Exchange {
    record: Arc<Record>,
    is_answered: bool,
}

impl Exchange {
    pub(super) fn begin(record: &Arc<Record>) -> Self {
        record.requests.fetch_add(1, Ordering::Relaxed);
        record.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            record: Arc::clone(record),
            is_answered: false,
        }
    }

    /// Says that the end of the exchange, whenever it comes, is not the client's doing.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.is_answered && !self.record.is_hanging_up.load(Ordering::Relaxed) {
            self.record.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        self.record.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
