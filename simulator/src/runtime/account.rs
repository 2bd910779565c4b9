//! The routes that need an account at the makers of Ollama: a scripted runtime has none.

use http::StatusCode;
use serde_json::json;

use super::reply::{ApiError, Reply};
use super::routes::Call;

const SIGN_IN: &str = "http://localhost/simulated-sign-in";

pub(super) fn status(call: &Call) -> Reply {
    let source = if call.script.cloud_disabled {
        "env"
    } else {
        "none"
    };
    let cloud = json!({ "disabled": call.script.cloud_disabled, "source": source });
    Reply::json(&json!({ "cloud": cloud }))
}

/// Answers whatever asks who is signed in, or signs out.
pub(super) fn unauthorized() -> Reply {
    let error = json!({ "error": "unauthorized", "signin_url": SIGN_IN });
    Reply::json_with_status(StatusCode::UNAUTHORIZED, &error)
}

/// Answers what would be done elsewhere.
pub(super) fn cloud(call: &Call) -> Result<Reply, ApiError> {
    if call.script.cloud_disabled {
        let message = "ollama cloud is disabled: web search is unavailable";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let _request: serde_json::Value = call.json()?;
    Ok(unauthorized())
}

pub(super) fn recommendations(call: &Call) -> Reply {
    let names = call.script.models.iter().map(|model| &model.name);
    let entries = names.map(|name| json!({ "model": name, "description": "simulated" }));
    Reply::json(&json!({ "recommendations": entries.collect::<Vec<_>>() }))
}
