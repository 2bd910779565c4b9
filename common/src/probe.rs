//! Asks a model runtime what it is and what it serves, without changing anything there.
//!
//! Only `GET` routes that list things are used: a probe never loads a model. What the runtime says
//! is bounded and cleaned before anybody sees it.

mod models;

use std::fmt;
use std::num::NonZeroU32;

use http::StatusCode;
use serde_json::Value;

use crate::http::{HttpClient, HttpError, HttpResponse};
use crate::protocol::runtime::{LoadedModel, Model, RuntimeKind, RuntimeReport, RuntimeStatus};

/// What `service` is in the coordinator's answer to `GET /healthz`.
pub const COORDINATOR_SERVICE: &str = "ollama-coordinator";
const MAX_TITLE_CHARS: usize = 80;

/// Looks at the runtime behind `client`: Ollama, else any server that speaks the OpenAI API.
///
/// Once per connection it also asks whether the server is a coordinator, which relays Ollama's
/// routes and would otherwise pass for a runtime.
///
/// # Errors
/// Nothing answers, or what answers is no usable runtime; the error says what it is instead.
pub async fn probe(client: &mut HttpClient) -> Result<RuntimeReport, ProbeError> {
    if !client.is_connected() && is_coordinator(client).await? {
        client.disconnect();
        return Err(ProbeError::Coordinator);
    }
    let answer = client.get("/api/version").await?;
    match json(&answer).as_ref().and_then(ollama_version) {
        Some(version) => ollama(client, version).await,
        None => openai(client, &answer).await,
    }
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
        /// The status of `GET /v1/models`.
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

async fn is_coordinator(client: &mut HttpClient) -> Result<bool, HttpError> {
    let answer = client.get("/healthz").await?;
    let service = json(&answer).and_then(|body| Some(body.get("service")?.as_str()?.to_owned()));
    Ok(service.as_deref() == Some(COORDINATOR_SERVICE))
}

fn ollama_version(body: &Value) -> Option<String> {
    models::clean(body.get("version")?)
}

async fn ollama(client: &mut HttpClient, version: String) -> Result<RuntimeReport, ProbeError> {
    let tags = listing(client, "/api/tags").await?;
    let loaded = match listing(client, "/api/ps").await {
        Err(ProbeError::Refused { status, .. }) if status == StatusCode::NOT_FOUND => Value::Null,
        listed => listed?,
    };
    Ok(RuntimeReport {
        kind: RuntimeKind::Ollama,
        status: RuntimeStatus::Running,
        version: Some(version),
        models: models::sorted(tags.get("models"), models::ollama, |m: &Model| &m.name),
        loaded_models: models::sorted(loaded.get("models"), models::loaded, |m: &LoadedModel| {
            &m.name
        }),
        slots: None,
    })
}

async fn listing(client: &mut HttpClient, path: &'static str) -> Result<Value, ProbeError> {
    let answer = client.get(path).await?;
    let status = answer.status;
    json(&answer).ok_or(ProbeError::Refused { path, status })
}

/// Which models are in memory is unknown here: the OpenAI API does not say.
async fn openai(
    client: &mut HttpClient,
    version_answer: &HttpResponse,
) -> Result<RuntimeReport, ProbeError> {
    let answer = client.get("/v1/models").await?;
    let body = json(&answer);
    let Some(list) = body.as_ref().and_then(|body| body.get("data")) else {
        return Err(not_a_runtime(version_answer, &answer));
    };
    let props = json(&client.get("/props").await?).unwrap_or(Value::Null);
    let slots = props.get("total_slots").and_then(Value::as_u64);
    Ok(RuntimeReport {
        kind: RuntimeKind::Openai,
        status: RuntimeStatus::Running,
        version: props.get("build_info").and_then(models::clean),
        models: models::sorted(Some(list), models::openai, |m: &Model| &m.name),
        loaded_models: Vec::new(),
        slots: slots
            .and_then(|slots| u32::try_from(slots).ok())
            .and_then(NonZeroU32::new),
    })
}

fn not_a_runtime(version_answer: &HttpResponse, models_answer: &HttpResponse) -> ProbeError {
    let answers = [models_answer, version_answer];
    if let Some(page) = answers.into_iter().find_map(WebPage::detect) {
        return ProbeError::WebPage(page);
    }
    let status = models_answer.status;
    // A runtime that is still loading its model, is overloaded or wants a key.
    let refuses = status.is_server_error()
        || [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status);
    if refuses {
        let path = "/v1/models";
        return ProbeError::Refused { path, status };
    }
    ProbeError::NotARuntime { status }
}

/// Returns the JSON object in a good answer.
fn json(answer: &HttpResponse) -> Option<Value> {
    let body = answer.json::<Value>().ok()?;
    (answer.status == StatusCode::OK && body.is_object()).then_some(body)
}

#[cfg(test)]
mod tests;
