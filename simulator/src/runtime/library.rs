//! The routes that change which models a scripted runtime has.

use std::collections::BTreeMap;

use http::StatusCode;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::Deserialize;
use serde_json::{Value, json};

use super::engine::Engine;
use super::progress::{PIECES, Progress, transfer};
use super::reply::{ApiError, Reply, SIMULATED_ERROR};
use super::routes::Call;
use super::script::{simulated_model, with_tag};

/// Names that begin so are in no library.
const MISSING: &str = "missing";
/// Transfers of names that begin so break off half-way.
const BROKEN: &str = "broken";
const SIZE_OF_PULLED: u64 = 1 << 30;

#[derive(Debug, Deserialize)]
struct ModelRequest {
    model: Option<String>,
    name: Option<String>,
    stream: Option<bool>,
    from: Option<String>,
    files: Option<BTreeMap<String, String>>,
}

impl ModelRequest {
    /// Returns the full name that the request is about.
    fn name(&self) -> Result<String, ApiError> {
        let name = self.model.as_deref().filter(|name| !name.is_empty());
        let name = name.or(self.name.as_deref()).unwrap_or_default();
        checked_name(name)
    }
}

pub(super) async fn pull(call: &Call) -> Result<Reply, ApiError> {
    let request: ModelRequest = call.json()?;
    let name = request.name()?;
    if name.starts_with(MISSING) {
        return Err(ApiError::failed("pull model manifest: file does not exist"));
    }
    let pulled = simulated_model(&name, SIZE_OF_PULLED);
    let mut steps = vec![status("pulling manifest")];
    steps.extend(transferred(&name, "pulling", &pulled));
    steps.push(status("verifying sha256 digest"));
    steps.push(status("writing manifest"));
    let finish = Box::new(move |engine: &Engine| add(engine, pulled));
    call.tell(request.stream, Progress { steps, finish }).await
}

pub(super) async fn push(call: &Call) -> Result<Reply, ApiError> {
    let request: ModelRequest = call.json()?;
    if request
        .model
        .as_ref()
        .or(request.name.as_ref())
        .is_none_or(String::is_empty)
    {
        return Err(ApiError::bad_request("model is required"));
    }
    let name = request.name()?;
    let model = call.script.model(&name);
    let model = model.ok_or_else(|| ApiError::unknown_model(&name))?;
    let mut steps = vec![status("retrieving manifest")];
    steps.extend(transferred(&name, "pushing", model));
    steps.push(status("pushing manifest"));
    let finish = Box::new(|_: &Engine| {});
    call.tell(request.stream, Progress { steps, finish }).await
}

pub(super) async fn create(call: &Call) -> Result<Reply, ApiError> {
    let request: ModelRequest = call.json()?;
    let name = request.name()?;
    let mut created = simulated_model(&name, SIZE_OF_PULLED);
    let mut steps = Vec::new();
    if let Some(from) = request.from.as_deref().filter(|from| !from.is_empty()) {
        let parent = call.script.model(from);
        let parent = parent.ok_or_else(|| ApiError::unknown_model(from))?;
        created = Model {
            name: created.name,
            digest: created.digest,
            ..parent.clone()
        };
        if let Some(details) = &mut created.details {
            details.parent_model.clone_from(&parent.name);
        }
    } else if request.files.as_ref().is_none_or(BTreeMap::is_empty) {
        return Err(ApiError::bad_request(
            "neither 'from' or 'files' was specified",
        ));
    }
    for digest in request.files.iter().flat_map(BTreeMap::values) {
        steps.push(if call.engine.blobs.has(digest) {
            status(&format!("using existing layer {digest}"))
        } else {
            json!({ "error": format!("blob {digest:?} not found") })
        });
    }
    steps.push(status("writing manifest"));
    let finish = Box::new(move |engine: &Engine| add(engine, created));
    call.tell(request.stream, Progress { steps, finish }).await
}

pub(super) fn copy(call: &Call) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct CopyRequest {
        #[serde(default)]
        source: String,
        #[serde(default)]
        destination: String,
    }

    let request: CopyRequest = call.json()?;
    let source =
        checked_name(&request.source).map_err(|_why| invalid("source", &request.source))?;
    let destination = checked_name(&request.destination)
        .map_err(|_why| invalid("destination", &request.destination))?;
    let model = call.script.model(&source).ok_or_else(|| {
        let message = format!("model {:?} not found", request.source);
        ApiError::new(StatusCode::NOT_FOUND, message)
    })?;
    let copied = Model {
        name: destination,
        ..model.clone()
    };
    add(&call.engine, copied);
    Ok(Reply::empty(StatusCode::OK))
}

pub(super) fn delete(call: &Call) -> Result<Reply, ApiError> {
    let request: ModelRequest = call.json()?;
    let asked_for = request.model.as_deref().or(request.name.as_deref());
    let name = &call.model(asked_for, None)?.name;
    call.engine.unload(name);
    call.engine
        .change(|script| script.models.retain(|model| model.name != *name));
    Ok(Reply::empty(StatusCode::OK))
}

fn invalid(which: &str, name: &str) -> ApiError {
    ApiError::bad_request(format!("{which} {name:?} is invalid"))
}

/// Adds a model, in place of one of the same name.
fn add(engine: &Engine, added: Model) {
    engine.change(|script| {
        script
            .models
            .retain(|model| !model.name.eq_ignore_ascii_case(&added.name));
        script.models.push(added);
    });
}

fn transferred(name: &str, verb: &str, model: &Model) -> impl Iterator<Item = Value> {
    let digest = model.digest.as_deref().unwrap_or_default();
    let pieces = transfer(verb, digest, model.size.unwrap_or(0));
    let is_broken = name.starts_with(BROKEN);
    let half = usize::try_from(PIECES / 2).unwrap_or(0);
    let sent = if is_broken { half } else { usize::MAX };
    let error = is_broken.then(|| json!({ "error": SIMULATED_ERROR }));
    pieces.take(sent).chain(error)
}

fn status(text: &str) -> Value {
    json!({ "status": text })
}

fn checked_name(name: &str) -> Result<String, ApiError> {
    let is_valid = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/:".contains(&byte));
    if is_valid {
        Ok(with_tag(name))
    } else {
        Err(ApiError::bad_request("invalid model name"))
    }
}
