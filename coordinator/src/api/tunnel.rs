//! The connection over which requests reach an agent's runtime.

use axum::body::Body;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::tunnel::PROTOCOL;
use serde::Deserialize;
use utoipa::IntoParams;

use super::agents::{AgentPath, agent_id};
use super::auth::Presented;
use super::error::ApiError;
use crate::proxy::tunnels::Tunnels;

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
    State(tunnels): State<Tunnels>,
    id: AgentPath,
    Presented(secret): Presented,
    query: Result<Query<TunnelQuery>, axum::extract::rejection::QueryRejection>,
    Upgrade(upgrade): Upgrade,
) -> Result<Response<Body>, ApiError> {
    let id = agent_id(id)?;
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    tunnels.open((id, query.session), secret, upgrade)?;

    let mut switching = Response::new(Body::empty());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = switching.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(switching)
}

/// A connection that is to become a tunnel.
pub struct Upgrade(OnUpgrade);

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let protocol = parts.headers.get(header::UPGRADE);
        let is_tunnel = |protocol: &HeaderValue| {
            protocol
                .as_bytes()
                .eq_ignore_ascii_case(PROTOCOL.as_bytes())
        };
        if !protocol.is_some_and(is_tunnel) {
            return Err(ApiError::UpgradeRequired);
        }
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        upgrade.map(Self).ok_or(ApiError::UpgradeRequired)
    }
}
