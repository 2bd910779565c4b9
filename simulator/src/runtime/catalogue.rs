//! The routes that tell what a scripted runtime has, without running a model.

use chrono::DateTime;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::Deserialize;
use serde_json::{Value, json};

use super::reply::{ApiError, Reply};
use super::routes::Call;

const CONTEXT_LENGTH: u32 = 4096;

pub(super) fn version(call: &Call) -> Reply {
    Reply::json(&json!({ "version": call.script.version }))
}

pub(super) fn tags(call: &Call) -> Reply {
    let models = call.script.models.iter().map(|model| {
        let mut entry = described(model);
        entry["modified_at"] = json!(model.modified_at);
        entry["capabilities"] = json!(model.capabilities);
        entry
    });
    Reply::json(&json!({ "models": models.collect::<Vec<_>>() }))
}

pub(super) fn ps(call: &Call) -> Reply {
    let loaded = call.engine.loaded();
    let entries = loaded.iter().filter_map(|(name, leaves_at)| {
        let model = call.script.model(name)?;
        let mut entry = described(model);
        entry["size_vram"] = json!(model.size);
        entry["expires_at"] = json!(call.script.wall_clock(*leaves_at));
        entry["context_length"] = json!(CONTEXT_LENGTH);
        Some(entry)
    });
    Reply::json(&json!({ "models": entries.collect::<Vec<_>>() }))
}

pub(super) fn show(call: &Call) -> Result<Reply, ApiError> {
    #[derive(Deserialize)]
    struct ShowRequest {
        model: Option<String>,
        name: Option<String>,
    }

    let request: ShowRequest = call.json()?;
    let model = call.model(request.model.as_deref(), request.name.as_deref())?;
    let family = model.details.as_ref().map(|details| details.family.clone());
    Ok(Reply::json(&json!({
        "license": "Nobody's: this model is simulated.",
        "modelfile": format!("FROM {}\n", model.name),
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": model.details,
        "model_info": {
            "general.architecture": family,
            "general.basename": model.name,
            "simulated.context_length": CONTEXT_LENGTH,
        },
        "capabilities": model.capabilities,
        "modified_at": model.modified_at,
    })))
}

pub(super) fn openai_models(call: &Call) -> Reply {
    let models = call.script.models.iter().map(openai_entry);
    Reply::json(&json!({ "object": "list", "data": models.collect::<Vec<_>>() }))
}

pub(super) fn openai_model(call: &Call, name: &str) -> Result<Reply, ApiError> {
    let model = call.script.model(name);
    let model = model.ok_or_else(|| ApiError::unknown_model(name))?;
    Ok(Reply::json(&openai_entry(model)))
}

fn described(model: &Model) -> Value {
    json!({
        "name": model.name,
        "model": model.name,
        "size": model.size,
        "digest": model.digest,
        "details": model.details,
    })
}

fn openai_entry(model: &Model) -> Value {
    let modified_at = model.modified_at.as_deref().unwrap_or_default();
    let created = DateTime::parse_from_rfc3339(modified_at).map_or(0, |at| at.timestamp());
    json!({ "id": model.name, "object": "model", "created": created, "owned_by": "simulated" })
}
