//! The connection over which requests reach an agent's runtime.

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::tunnel::PROTOCOL;
use serde::Deserialize;
use utoipa::IntoParams;

use super::agents::{AgentPath, agent_id};
use super::auth::Presented;
use super::error::ApiError;
use crate::proxy::tunnels::Tunnels;
use crate::registry::Registry;

/// Whose tunnel it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TunnelQuery {
    /// The session that the agent has registered.
    session: SessionId,
}

/// Turns the connection into the agent's tunnel: HTTP/2 with the coordinator as its client.
///
/// Ask for it with `Connection: upgrade` and `Upgrade: ollama-coordinator-tunnel`.
#[utoipa::path(
    get, path = "/api/agents/{id}/tunnel", tag = "agents",
    params(("id" = AgentId, Path), TunnelQuery), security((), ("agent_secret" = [])),
    responses(
        (status = 101, description = "The connection is a tunnel now"),
        (status = 400, description = "Invalid, or the agent registered an address", body = Problem),
        (status = 403, description = "`wrong_secret`", body = Problem),
        (status = 404, description = "`unknown_agent`: register this session first", body = Problem),
        (status = 409, description = "`duplicate_identity`: make a new id", body = Problem),
        (status = 426, description = "`upgrade_required`", body = Problem),
    )
)]
pub async fn open_tunnel(
    State(registry): State<Registry>,
    State(tunnels): State<Tunnels>,
    id: AgentPath,
    Presented(secret): Presented,
    query: Result<Query<TunnelQuery>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let id = agent_id(id)?;
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    if !wants_tunnel(request.headers()) {
        return Err(ApiError::UpgradeRequired);
    }
    registry.may_open_tunnel(id, secret, query.session)?;
    tunnels.take(id, query.session, hyper::upgrade::on(request));

    let mut switching = Response::new(Body::empty());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = switching.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(switching)
}

fn wants_tunnel(headers: &HeaderMap) -> bool {
    let protocol = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}
