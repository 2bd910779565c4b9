//! The contract: an `OpenAPI` document derived from the handlers and the wire types.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{about, agents, events, health, heartbeat, history, metrics, requests, tunnel};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ollama Coordinator",
        description = "The management API. Model traffic is answered on the same port under the \
            paths of Ollama and OpenAI, which are not described here.",
        license(name = "MIT")
    ),
    paths(
        agents::register_agent,
        agents::list_agents,
        agents::get_agent,
        agents::patch_agent,
        agents::remove_agent,
        heartbeat::renew_lease,
        heartbeat::end_session,
        tunnel::open_tunnel,
        events::stream_events,
        events::get_snapshot,
        events::list_happenings,
        history::get_history,
        about::get_about,
        requests::list_requests,
        requests::get_request,
        requests::cancel_request,
        health::get_liveness,
        health::get_readiness,
        metrics::get_metrics,
        get_openapi,
    ),
    modifiers(&AgentSecretScheme, &ProblemType)
)]
struct Contract;

struct AgentSecretScheme;

impl Modify for AgentSecretScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The secret that the agent made for itself"))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("agent_secret", SecurityScheme::Http(bearer));
    }
}

/// Errors have a media type of their own, which their shape does not tell.
struct ProblemType;

impl Modify for ProblemType {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let paths = openapi.paths.paths.values_mut();
        let operations = paths.flat_map(|path| {
            [
                &mut path.get,
                &mut path.post,
                &mut path.patch,
                &mut path.delete,
            ]
        });
        for operation in operations.flatten() {
            for response in operation.responses.responses.values_mut() {
                if let RefOr::T(response) = response {
                    mark_problem(response);
                }
            }
        }
    }
}

fn mark_problem(response: &mut utoipa::openapi::Response) {
    const JSON: &str = "application/json";
    let is_problem = |schema: &RefOr<Schema>| match schema {
        RefOr::Ref(schema) => schema.ref_location.ends_with("/Problem"),
        RefOr::T(_) => false,
    };
    let Some(RefOr::T(content)) = response.content.get(JSON) else {
        return;
    };
    if content.schema.as_ref().is_some_and(is_problem)
        && let Some(content) = response.content.shift_remove(JSON)
    {
        let media_type = "application/problem+json".to_owned();
        response.content.insert(media_type, content);
    }
}

/// Returns the contract as pretty JSON.
pub fn document() -> String {
    let mut json = Contract::openapi()
        .to_pretty_json()
        .expect("the contract serialises");
    json.push('\n');
    json
}

/// Shows this contract.
#[utoipa::path(get, path = "/api/openapi.json", tag = "process",
    responses((status = 200, description = "The contract", body = Object)))]
pub async fn get_openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], document()).into_response()
}
