//! Several machines do the same at the same time; the answer says what became of it on each.
//!
//! While they work their lines are passed on as they come, each with its agent. That one of them has
//! failed is told in a line without `error`, because clients end at one that has it, and in the last.

use std::time::Duration;

use axum::body::Body as AxumBody;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{Stream, StreamExt as _, select_all, unfold};
use http_body_util::BodyExt as _;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::aim::Contact;
use super::look::look;
use super::pass;
use super::upload::Moved;
use super::{Errand, Kept, json_answer, patience};
use crate::balancer::permit::Outcome;
use crate::proxy::Proxy;
use crate::proxy::body::ProxyBody;
use crate::proxy::cancel;
use crate::proxy::peek::{Peek, Prefix};
use crate::proxy::route::Machine;
use crate::proxy::story::Story;
use crate::proxy::target::HeldMemory;
use crate::proxy::upstream::{RequestBody, Sending, UpstreamBody};

/// The most bytes of one line; more is not progress.
const MAX_LINE: usize = 1024 * 1024;

/// What became of it on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Report {
    status: StatusCode,
    error: Option<String>,
}

/// What one machine says.
#[derive(Debug)]
enum Said {
    /// How far it is.
    Progress(Map<String, Value>),
    /// That it has ended.
    End(Report),
}

/// Has each machine do it, and answers when all have ended, or while they work.
pub async fn ask(
    proxy: &Proxy,
    machine: Machine,
    contacts: Vec<Contact>,
    (errand, (body, held)): (Errand, Kept),
    mut story: Story,
) -> Response<ProxyBody> {
    let wants_stream = Peek::of(&errand.headers, &body, Prefix::Ignored)
        .map_or(true, |peek| peek.stream != Some(false));
    let said = select_all(contacts.iter().cloned().enumerate().map(|(at, contact)| {
        let work = Work::new(proxy, contact, &errand, &body, machine.tells_progress());
        Box::pin(work.stream().map(move |said| (at, said)))
    }));
    let reports = vec![None; contacts.len()];
    let mut gathered = Gathered {
        contacts,
        reports,
        _held: held,
    };
    if !(machine.tells_progress() && wants_stream) {
        let mut said = said;
        while let Some((at, said)) = said.next().await {
            gathered.note(at, said);
        }
        let (status, summary) = gathered.summary();
        story.answered(status, None);
        story.ended(Outcome::Success, 0, 0, [b"", b""]);
        return json_answer(status, summary.to_string());
    }
    story.answered(StatusCode::OK, None);
    let lines = unfold(Some((said, gathered, story)), async |state| {
        let (mut said, mut gathered, story) = state?;
        let cancelled = story.cancelled();
        loop {
            let next = tokio::select! {
                biased;
                next = said.next() => next,
                () = cancelled.heard() => {
                    return Some((line(json!({ "error": cancel::MESSAGE })), None));
                }
            };
            let Some((at, next)) = next else {
                story.ended(Outcome::Success, 0, 0, [b"", b""]);
                return Some((line(gathered.summary().1), None));
            };
            if let Some(progress) = gathered.note(at, next) {
                return Some((line(progress), Some((said, gathered, story))));
            }
        }
    });
    let lines = lines.map(Ok::<_, std::convert::Infallible>);
    let mut response = Response::new(ProxyBody::Other(AxumBody::from_stream(lines)));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    response
}

fn line(value: Value) -> Bytes {
    format!("{value}\n").into()
}

/// What has been said so far.
struct Gathered {
    contacts: Vec<Contact>,
    reports: Vec<Option<Report>>,
    /// The body may have to be sent until all have ended.
    _held: HeldMemory,
}

impl Gathered {
    /// Takes note, and returns what the client is told at once.
    fn note(&mut self, at: usize, said: Said) -> Option<Value> {
        let contact = &self.contacts[at];
        let agent = json!({ "id": contact.id, "name": contact.name });
        match said {
            Said::Progress(mut progress) => {
                progress.insert("agent".to_owned(), agent);
                Some(Value::Object(progress))
            }
            Said::End(report) => {
                let failed = report.error.clone();
                self.reports[at] = Some(report);
                failed.map(|error| json!({ "agent": agent, "status": format!("failed: {error}") }))
            }
        }
    }

    /// Says what became of it on every machine.
    fn summary(&self) -> (StatusCode, Value) {
        let unknown = Report {
            status: StatusCode::BAD_GATEWAY,
            error: Some("it did not say how it ended".to_owned()),
        };
        let reports = self.reports.iter();
        let reports: Vec<&Report> = reports.map(|r| r.as_ref().unwrap_or(&unknown)).collect();
        let agents: Vec<Value> = self.contacts.iter().zip(&reports).map(shown).collect();
        let failed: Vec<String> = self
            .contacts
            .iter()
            .zip(&reports)
            .filter_map(|(contact, report)| {
                let error = report.error.as_ref()?;
                Some(format!("{}: {error}", contact.name))
            })
            .collect();
        if failed.is_empty() {
            let summary = json!({ "status": "success", "agents": agents });
            return (StatusCode::OK, summary);
        }
        let is_missing = |report: &&Report| report.status == StatusCode::NOT_FOUND;
        let status = if reports.iter().all(is_missing) {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::BAD_GATEWAY
        };
        let error = format!(
            "{} of {} machines failed: {}",
            failed.len(),
            agents.len(),
            failed.join("; ")
        );
        (status, json!({ "error": error, "agents": agents }))
    }
}

fn shown((contact, report): (&Contact, &&Report)) -> Value {
    let mut shown = json!({
        "id": contact.id, "name": contact.name, "status": report.status.as_u16(),
    });
    if let Some(error) = &report.error {
        shown["error"] = json!(error);
    }
    shown
}

/// One machine at work; dropped, the machine is told that nobody waits any more.
struct Work {
    proxy: Proxy,
    contact: Contact,
    state: State,
    /// Whether it has to say at the end that it has succeeded.
    says_success: bool,
    has_succeeded: bool,
    failed: Option<Report>,
    changes_models: bool,
}

enum State {
    Unsent(Box<Request<RequestBody>>),
    Answering(StatusCode, Lines),
    Ended,
}

impl Work {
    fn new(
        proxy: &Proxy,
        contact: Contact,
        errand: &Errand,
        body: &Bytes,
        says_success: bool,
    ) -> Self {
        Self {
            proxy: proxy.clone(),
            changes_models: errand.changes_models,
            contact,
            state: State::Unsent(Box::new(errand.request_with(body))),
            says_success,
            has_succeeded: false,
            failed: None,
        }
    }

    fn stream(self) -> impl Stream<Item = Said> {
        unfold(self, async |mut work| {
            let said = work.next().await?;
            Some((said, work))
        })
    }

    async fn next(&mut self) -> Option<Said> {
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Unsent(request) => match self.send(*request).await {
                    Ok(answering) => self.state = answering,
                    Err(report) => return Some(Said::End(report)),
                },
                State::Answering(status, mut lines) => match lines.next().await {
                    Ok(Some(line)) => {
                        self.state = State::Answering(status, lines);
                        if let Some(progress) = self.read(status, &line) {
                            return Some(Said::Progress(progress));
                        }
                    }
                    Ok(None) => {
                        if self.changes_models && status.is_success() {
                            look(self.proxy.clone(), self.contact.clone()).await;
                        }
                        return Some(Said::End(self.report(status)));
                    }
                    Err(error) => return Some(Said::End(Report::failed(error))),
                },
                State::Ended => return None,
            }
        }
    }

    async fn send(&self, request: Request<RequestBody>) -> Result<State, Report> {
        let moved = Moved::now();
        let sending = Sending::Once(Box::new(request));
        let sent = pass::send(&self.proxy, &self.contact, sending, &moved).await;
        let answer = sent.map_err(|error| Report {
            status: error.status(),
            error: Some(error.message()),
        })?;
        let lines = Lines {
            body: answer.rest,
            buffered: BytesMut::new(),
            patience: patience(&self.proxy),
            has_ended: false,
        };
        Ok(State::Answering(answer.head.status, lines))
    }

    /// Takes note of a line, and returns it if it tells how far the machine is.
    fn read(&mut self, status: StatusCode, line: &[u8]) -> Option<Map<String, Value>> {
        let line = serde_json::from_slice::<Map<String, Value>>(line).ok()?;
        if let Some(error) = line.get("error").and_then(Value::as_str) {
            let status = if status.is_success() {
                StatusCode::BAD_GATEWAY
            } else {
                status
            };
            self.failed = Some(Report {
                status,
                error: Some(error.to_owned()),
            });
            return None;
        }
        self.has_succeeded |= line.get("status").and_then(Value::as_str) == Some("success");
        Some(line)
    }

    /// Judges an answer that has come to its end.
    fn report(&mut self, status: StatusCode) -> Report {
        if let Some(failed) = self.failed.take() {
            return failed;
        }
        if !status.is_success() {
            let error = Some(format!("it answered {status}"));
            return Report { status, error };
        }
        if self.says_success && !self.has_succeeded {
            return Report::failed("it ended before it was done".to_owned());
        }
        Report {
            status,
            error: None,
        }
    }
}

impl Report {
    fn failed(error: String) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            error: Some(error),
        }
    }
}

/// The lines of a machine's answer.
struct Lines {
    body: UpstreamBody,
    buffered: BytesMut,
    patience: Duration,
    has_ended: bool,
}

impl Lines {
    /// Returns the next line; the last one need not end in a line break.
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            if let Some(end) = self.buffered.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.buffered.split_to(end + 1).freeze()));
            }
            if self.has_ended {
                let rest = std::mem::take(&mut self.buffered).freeze();
                return Ok((!rest.is_empty()).then_some(rest));
            }
            if self.buffered.len() > MAX_LINE {
                return Err("it said more than can be understood".to_owned());
            }
            match timeout(self.patience, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffered.extend_from_slice(&data);
                    }
                }
                Ok(Some(Err(_broken))) => return Err("it broke off".to_owned()),
                Ok(None) => self.has_ended = true,
                Err(_elapsed) => {
                    let seconds = self.patience.as_secs_f32();
                    return Err(format!("it said nothing for {seconds} s"));
                }
            }
        }
    }
}
