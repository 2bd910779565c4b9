//! Staying registered, and leaving.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ollama_coordinator_common::protocol::register::CoordinatorIdentity;
use ollama_coordinator_common::protocol::view::AgentStatus;
use serde::Deserialize;
use utoipa::IntoParams;

use super::agents::{AgentPath, agent_id};
use super::auth::Presented;
use super::body::OptionalJsonBody;
use super::error::ApiError;
use super::validate;
use crate::registry::Registry;

/// Renews an agent's lease.
#[utoipa::path(
    post, path = "/api/agents/{id}/heartbeat", tag = "agents",
    params(("id" = AgentId, Path)), security((), ("agent_secret" = [])),
    request_body(content = Option<HeartbeatRequest>),
    responses(
        (status = 200, description = "Renewed", body = HeartbeatResponse),
        (status = 400, description = "Invalid", body = Problem),
        (status = 403, description = "`wrong_secret`", body = Problem),
        (status = 404, description = "`unknown_agent`: register again", body = Problem),
        (status = 409, description = "`duplicate_identity`: make a new id", body = Problem),
    )
)]
pub async fn renew_lease(
    State(registry): State<Registry>,
    id: AgentPath,
    Presented(secret): Presented,
    OptionalJsonBody(request): OptionalJsonBody<HeartbeatRequest>,
) -> Result<Json<HeartbeatResponse>, ApiError> {
    let id = agent_id(id)?;
    validate::heartbeat(&request)?;
    let renewed = registry.renew(id, secret, request)?;

    Ok(Json(HeartbeatResponse {
        status: AgentStatus::Online,
        routable: renewed.reason.is_none(),
        reason: renewed.reason,
        epoch: renewed.epoch,
        lease: renewed.terms.into(),
        coordinator: CoordinatorIdentity {
            instance_id: registry.instance_id(),
        },
    }))
}

/// Whose goodbye it is.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GoodbyeQuery {
    /// The session that ends; one that is no longer the agent's changes nothing.
    session: Option<SessionId>,
}

/// Says goodbye for an agent: offline at once, its record is kept.
#[utoipa::path(
    delete, path = "/api/agents/{id}/session", tag = "agents",
    params(("id" = AgentId, Path), GoodbyeQuery), security((), ("agent_secret" = [])),
    responses(
        (status = 204, description = "Offline"),
        (status = 400, description = "Invalid", body = Problem),
        (status = 403, description = "`wrong_secret`", body = Problem),
        (status = 404, description = "`unknown_agent`", body = Problem),
        (status = 503, description = "Not durable, nothing changed", body = Problem),
    )
)]
pub async fn end_session(
    State(registry): State<Registry>,
    id: AgentPath,
    Presented(secret): Presented,
    query: Result<Query<GoodbyeQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    registry.leave(agent_id(id)?, secret, query.session).await?;
    Ok(StatusCode::NO_CONTENT)
}
