//! Asks a model runtime what it is and what it serves, without changing anything there.
//!
//! Only `GET` routes that list things are used: a probe never loads a model. What the runtime says
//! is bounded and cleaned before anybody sees it.

mod models;

use std::fmt;

use http::StatusCode;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::http::{HttpClient, HttpError, HttpResponse};
use crate::protocol::runtime::{Model, RuntimeKind, RuntimeReport, RuntimeStatus};
use models::Named;

/// What `service` is in the coordinator's answer to `GET /healthz`.
pub const COORDINATOR_SERVICE: &str = "ollama-coordinator";
/// The most bytes of a runtime's answer that are worth reading; clients made for a probe use it.
pub const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
const MAX_TITLE_CHARS: usize = 80;

/// Looks at the runtime behind `client`: Ollama, else any server that speaks the OpenAI API.
///
/// Once per connection it also asks whether the server is a coordinator, which relays Ollama's
/// routes and would otherwise pass for a runtime.
///
/// # Errors
/// Nothing answers, or what answers is no usable runtime; the error says what it is instead.
pub async fn probe(client: &mut HttpClient) -> Result<RuntimeReport, ProbeError> {
    refuse_coordinator(client).await?;
    let answer = client.get("/api/version").await?;
    match ollama_version(&answer) {
        Some(version) => ollama(client, version).await,
        None => openai(client, &answer).await,
    }
}

/// Reads the models in the body of an answer to Ollama's `GET /api/tags`.
#[must_use]
pub fn models_in(tags: &[u8]) -> Option<Vec<Model>> {
    list(tags, models::ollama)
}

/// Checks that a runtime of this kind, and not a coordinator, is behind `client`.
///
/// # Errors
/// As [`probe`].
pub async fn verify(client: &mut HttpClient, kind: RuntimeKind) -> Result<(), ProbeError> {
    refuse_coordinator(client).await?;
    let path = match kind {
        RuntimeKind::Ollama => "/api/version",
        RuntimeKind::Openai => "/v1/models",
    };
    let answer = client.get(path).await?;
    if json::<IgnoredAny>(&answer).is_none() {
        return Err(not_a_runtime(path, [&answer]));
    }
    Ok(())
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nothing answers, or not in time.
    #[error("the runtime does not answer")]
    NotAnswering(#[from] HttpError),
    /// The address is a coordinator's, not a runtime's.
    #[error("this is an Ollama Coordinator, not a model runtime; point to the runtime itself")]
    Coordinator,
    /// A web site answers.
    #[error("{0} answers, not a model runtime")]
    WebPage(WebPage),
    /// A model runtime answers, but refuses or fails.
    #[error("the runtime answers {path} with status {status}")]
    Refused {
        /// The route that was asked.
        path: &'static str,
        /// The status it answered.
        status: StatusCode,
    },
    /// Something else answers.
    #[error("what answers (status {status}) is neither Ollama nor a server with the OpenAI API")]
    NotARuntime {
        /// Its status.
        status: StatusCode,
    },
}

/// An HTML page where something else was expected, such as a captive portal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebPage {
    title: Option<String>,
}

impl WebPage {
    /// Returns the page when `answer` is one.
    pub fn detect(answer: &HttpResponse) -> Option<Self> {
        let content_type = answer
            .headers
            .get(http::header::CONTENT_TYPE)?
            .to_str()
            .ok()?;
        if !content_type.trim_start().starts_with("text/html") {
            return None;
        }
        let html = String::from_utf8_lossy(&answer.body);
        let title = html.split_once("<title>").and_then(|(_, rest)| {
            let (title, _) = rest.split_once("</title>")?;
            let words = title.split_whitespace().collect::<Vec<_>>().join(" ");
            let title = words.chars().filter(|c| !c.is_control());
            Some(title.take(MAX_TITLE_CHARS).collect::<String>())
        });
        Some(Self {
            title: title.filter(|title| !title.is_empty()),
        })
    }
}

impl fmt::Display for WebPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.title {
            Some(title) => write!(f, "a web page (title \"{title}\")"),
            None => f.write_str("a web page"),
        }
    }
}

/// Asks once per connection whether a coordinator answers.
async fn refuse_coordinator(client: &mut HttpClient) -> Result<(), ProbeError> {
    if !client.is_connected() && is_coordinator(client).await? {
        client.disconnect();
        return Err(ProbeError::Coordinator);
    }
    Ok(())
}

async fn is_coordinator(client: &mut HttpClient) -> Result<bool, HttpError> {
    #[derive(Deserialize)]
    struct Health {
        service: String,
    }

    let answer = client.get("/healthz").await?;
    let health = json::<Health>(&answer);
    Ok(health.is_some_and(|health| health.service == COORDINATOR_SERVICE))
}

fn ollama_version(answer: &HttpResponse) -> Option<String> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }

    models::clean(&json::<Version>(answer)?.version)
}

async fn ollama(client: &mut HttpClient, version: String) -> Result<RuntimeReport, ProbeError> {
    let tags = listing(client, "/api/tags", models::ollama).await?;
    let loaded = match listing(client, "/api/ps", models::loaded).await {
        Err(ProbeError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Vec::new(),
        listed => listed?,
    };
    Ok(RuntimeReport {
        kind: RuntimeKind::Ollama,
        status: RuntimeStatus::Running,
        version: Some(version),
        models: tags,
        loaded_models: loaded,
        slots: None,
    })
}

async fn listing<M: Named>(
    client: &mut HttpClient,
    path: &'static str,
    read: fn(&Value) -> Option<M>,
) -> Result<Vec<M>, ProbeError> {
    let answer = client.get(path).await?;
    let status = answer.status;
    let is_good = status == StatusCode::OK;
    let listed = is_good.then(|| list(&answer.body, read)).flatten();
    listed.ok_or(ProbeError::Refused { path, status })
}

fn list<M: Named>(body: &[u8], read: fn(&Value) -> Option<M>) -> Option<Vec<M>> {
    #[derive(Deserialize)]
    struct Listing<'a> {
        #[serde(borrow)]
        models: Option<&'a RawValue>,
    }

    let listing = object::<Listing<'_>>(body)?;
    Some(models::sorted(listing.models, read))
}

/// Which models are in memory is unknown here: the OpenAI API does not say.
async fn openai(
    client: &mut HttpClient,
    version_answer: &HttpResponse,
) -> Result<RuntimeReport, ProbeError> {
    #[derive(Deserialize)]
    struct Listing<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }

    let path = "/v1/models";
    let answer = client.get(path).await?;
    let Some(list) = json::<Listing<'_>>(&answer) else {
        return Err(not_a_runtime(path, [&answer, version_answer]));
    };
    let models = models::sorted(Some(list.data), models::openai);
    let props = client.get("/props").await?;
    let props = json::<Props<'_>>(&props).unwrap_or_default();
    Ok(RuntimeReport {
        kind: RuntimeKind::Openai,
        status: RuntimeStatus::Running,
        version: field(props.build_info).and_then(|build: String| models::clean(&build)),
        models,
        loaded_models: Vec::new(),
        slots: field(props.total_slots),
    })
}

/// What llama.cpp's server tells of itself; a field that is odd does not cost the other.
#[derive(Deserialize, Default)]
struct Props<'a> {
    #[serde(borrow)]
    total_slots: Option<&'a RawValue>,
    #[serde(borrow)]
    build_info: Option<&'a RawValue>,
}

fn field<T: DeserializeOwned>(value: Option<&RawValue>) -> Option<T> {
    serde_json::from_str(value?.get()).ok()
}

/// Says what it is that answers; the first of `answers` is the one to `path`.
fn not_a_runtime<const N: usize>(path: &'static str, answers: [&HttpResponse; N]) -> ProbeError {
    if let Some(page) = answers.into_iter().find_map(WebPage::detect) {
        return ProbeError::WebPage(page);
    }
    let status = answers[0].status;
    // A runtime that is still loading its model, is overloaded or wants a key.
    let refuses = status.is_server_error()
        || [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
    if refuses {
        return ProbeError::Refused { path, status };
    }
    ProbeError::NotARuntime { status }
}

/// Reads the JSON object in a good answer. Only what `T` names is kept: a hostile answer of many
/// small values would take many times its size as a [`Value`].
fn json<'a, T: Deserialize<'a>>(answer: &'a HttpResponse) -> Option<T> {
    let is_good = answer.status == StatusCode::OK;
    is_good.then(|| object(&answer.body))?
}

fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    let is_object = body.trim_ascii_start().starts_with(b"{");
    is_object.then(|| serde_json::from_slice(body).ok())?
}

#[cfg(test)]
mod tests;
