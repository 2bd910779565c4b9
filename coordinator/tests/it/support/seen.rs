//! What clients saw of their answers: whole, or not, and whether they were told.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::api::{Api, request};
use super::chat::MODEL;
use super::say;

/// How many answers came to which end.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) whole: usize,
    /// A stream that had begun and ended in an error that says so.
    pub(crate) told: usize,
    /// No answer, or an error, before the first byte.
    pub(crate) failed: usize,
    /// A stream that had begun and whose connection broke.
    pub(crate) broken: usize,
    /// A stream that had begun and ended as if it were whole.
    pub(crate) silent: usize,
}

/// An answer and how it ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) seen: Seen,
    /// What the model said.
    pub(crate) said: String,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.whole += other.whole;
        self.told += other.told;
        self.failed += other.failed;
        self.broken += other.broken;
        self.silent += other.silent;
    }
}

/// Asks for a completion and reads all that comes.
pub(crate) async fn ask(api: Api, prompt: &str, stream: bool) -> Told {
    let mut seen = Seen::default();
    let mut said = String::new();
    let ask = json!({ "model": MODEL, "prompt": prompt, "stream": stream }).to_string();
    let sent = api.try_send(request(Method::POST, "/api/generate", ask));
    let Ok(mut answer) = sent.await else {
        seen.failed = 1;
        return Told { seen, said };
    };
    let (text, broken) = answer.read_all().await;
    let mut last = Value::Null;
    for line in text.lines() {
        last = serde_json::from_str(line).unwrap_or_default();
        said.push_str(last["response"].as_str().unwrap_or_default());
    }
    if answer.status != StatusCode::OK || text.is_empty() {
        say(&format!("failed with {}: {text}", answer.status));
        seen.failed = 1;
    } else if last["done"] == true {
        seen.whole = 1;
    } else if last["error"].is_string() {
        seen.told = 1;
    } else if broken.is_some() {
        seen.broken = 1;
    } else {
        seen.silent = 1;
    }
    Told { seen, said }
}

/// Asks again and again.
pub(crate) async fn ask_until(api: Api, stream: bool, stop: CancellationToken) -> Seen {
    let mut seen = Seen::default();
    while !stop.is_cancelled() {
        seen.add(ask(api, "hi", stream).await.seen);
    }
    seen
}
