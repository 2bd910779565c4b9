//! Lists that the coordinator answers from its own knowledge: no machine is waited for.

use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use chrono::DateTime;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::Serialize;
use serde_json::{Value, json};

use super::body::ProxyBody;
use super::error;
use super::route::List;
use crate::registry::Registry;
use crate::registry::candidates::Candidates;

/// Answers from what the registry knows.
pub fn answer(registry: &Registry, list: List, head: &Parts) -> Response<ProxyBody> {
    let candidates = registry.candidates();
    let body = match list {
        List::Root => return error::plain(StatusCode::OK, "Ollama is running"),
        List::Version => {
            json!({ "version": candidates.commonest_version().unwrap_or("0.0.0") })
        }
        List::Tags => tags(&candidates),
        List::Ps => json!({ "models": [] }),
        List::Models => models(&candidates),
        List::Model => {
            let _unused = head;
            return error::page_not_found();
        }
    };
    let mut response = Response::new(ProxyBody::whole(body.to_string()));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Lists the models of all routable agents in Ollama's shape.
fn tags(candidates: &Candidates) -> Value {
    let models: Vec<TagsModel<'_>> = candidates.models().map(TagsModel::of).collect();
    json!({ "models": models })
}

/// Lists the models of all routable agents in OpenAI's shape.
fn models(candidates: &Candidates) -> Value {
    let models: Vec<Value> = candidates.models().map(openai_model).collect();
    json!({ "object": "list", "data": models })
}

#[derive(Serialize)]
struct TagsModel<'a> {
    name: &'a str,
    model: &'a str,
    modified_at: &'a str,
    size: u64,
    digest: &'a str,
    details: Value,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    capabilities: &'a [String],
}

impl<'a> TagsModel<'a> {
    fn of(model: &'a Model) -> Self {
        Self {
            name: &model.name,
            model: &model.name,
            modified_at: model
                .modified_at
                .as_deref()
                .unwrap_or("1970-01-01T00:00:00Z"),
            size: model.size.unwrap_or(0),
            digest: model.digest.as_deref().unwrap_or(""),
            details: json!(model.details.clone().unwrap_or_default()),
            capabilities: &model.capabilities,
        }
    }
}

fn openai_model(model: &Model) -> Value {
    let modified = model
        .modified_at
        .as_deref()
        .and_then(|t| DateTime::parse_from_rfc3339(t).ok());
    let created = modified.map_or(0, |time| time.timestamp());
    let owner = model
        .name
        .split_once('/')
        .map_or("library", |(owner, _)| owner);
    json!({ "id": model.name, "object": "model", "created": created, "owned_by": owner })
}
