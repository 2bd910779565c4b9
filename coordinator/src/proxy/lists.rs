//! Lists that the coordinator answers from its own knowledge: no machine is waited for.

use axum::Json;
use axum::extract::State;
use chrono::DateTime;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::Serialize;
use serde_json::{Value, json};

use crate::registry::Registry;

/// Answers as Ollama's root does.
pub async fn root() -> &'static str {
    "Ollama is running"
}

/// Answers with the version that most agents' runtimes have.
pub async fn version(State(registry): State<Registry>) -> Json<Value> {
    let candidates = registry.candidates();
    Json(json!({ "version": candidates.commonest_version().unwrap_or("0.0.0") }))
}

/// Lists the models of all routable agents in Ollama's shape.
pub async fn tags(State(registry): State<Registry>) -> Json<Value> {
    let candidates = registry.candidates();
    let models: Vec<TagsModel<'_>> = candidates.models().map(TagsModel::of).collect();
    Json(json!({ "models": models }))
}

/// Lists the models of all routable agents in OpenAI's shape.
pub async fn models(State(registry): State<Registry>) -> Json<Value> {
    let candidates = registry.candidates();
    let models: Vec<Value> = candidates.models().map(openai_model).collect();
    Json(json!({ "object": "list", "data": models }))
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
