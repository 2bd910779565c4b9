//! Registering, listing, reading, changing and forgetting agents.

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::register::{
    CoordinatorIdentity, RegisterRequest, RegisterResponse,
};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView, PatchAgentRequest};
use ollama_coordinator_common::secret::SecretHash;
use serde::Deserialize;
use utoipa::IntoParams;

use super::address::{self, Peer};
use super::auth::Presented;
use super::body::JsonBody;
use super::error::ApiError;
use super::{NEXT_CURSOR, validate};
use crate::feed::{Feed, Refusal};
use crate::proxy::tunnels::Tunnels;
use crate::registry::Registry;
use crate::registry::registration::NewAgent;
use crate::registry::snapshot::AgentSnapshot;

/// How much of the name of a machine is remembered that was refused.
const MAX_REFUSED_NAME: usize = 80;

/// Registers an agent, or an agent again, and grants it a lease.
///
/// The registration is durable when this answers. `POST /api/agents/register` does the same.
#[utoipa::path(
    post, path = "/api/agents", tag = "agents", security((), ("agent_secret" = [])),
    request_body = RegisterRequest,
    responses(
        (status = 200, description = "Known before", body = RegisterResponse),
        (status = 201, description = "New", body = RegisterResponse),
        (status = 400, description = "Invalid, or the address is not allowed", body = Problem),
        (status = 403, description = "`wrong_secret`", body = Problem),
        (status = 409, description = "`duplicate_identity`: make a new id", body = Problem),
        (status = 413, description = "Too large", body = Problem),
        (status = 503, description = "Not durable, nothing changed", body = Problem),
    )
)]
pub async fn register_agent(
    State(registry): State<Registry>,
    State(feed): State<Feed>,
    Extension(peer): Extension<Peer>,
    Presented(secret): Presented,
    JsonBody(request): JsonBody<RegisterRequest>,
) -> Result<(StatusCode, Json<RegisterResponse>), ApiError> {
    let name = request
        .machine_name
        .chars()
        .take(MAX_REFUSED_NAME)
        .collect();
    let registered = match new_agent(peer, secret, request) {
        Ok(new) => registry.register(new).await.map_err(ApiError::from),
        Err(error) => Err(error),
    };
    let granted = registered.inspect_err(|error| {
        feed.refused(Refusal {
            machine_name: name,
            remote: peer.remote.ip(),
            code: error.code().to_string(),
        });
    })?;

    let status = if granted.is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let response = RegisterResponse {
        id: granted.id,
        status: AgentStatus::Online,
        epoch: granted.epoch,
        lease: granted.terms.into(),
        coordinator: CoordinatorIdentity {
            instance_id: registry.instance_id(),
        },
    };
    Ok((status, Json(response)))
}

fn new_agent(
    peer: Peer,
    secret: Option<SecretHash>,
    request: RegisterRequest,
) -> Result<NewAgent, ApiError> {
    validate::registration(&request)?;
    validate::agent_version(request.agent_version.as_deref())?;
    let ip_address = match request.link {
        LinkKind::Direct => address::resolve(request.ip_address, request.port, peer),
        // Nothing is dialled, so the address is only shown.
        LinkKind::Tunnel => Ok(request.ip_address.unwrap_or_else(|| peer.remote.ip())),
    }
    .map_err(ApiError::Address)?;
    Ok(NewAgent {
        id: request.agent_id,
        secret,
        session: request.session,
        epoch: request.epoch,
        cloned_from: request.cloned_from,
        machine_name: request.machine_name,
        ip_address,
        port: request.port,
        link: request.link,
        ollama_version: request.ollama_version,
        runtime: request.runtime,
        system_info: request.system_info,
        paused: request.paused,
        agent_version: request.agent_version,
    })
}

/// Which agents to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only agents with this status.
    #[param(inline)]
    status: Option<AgentStatus>,
    /// Only agents with this label: `key` or `key=value`.
    label: Option<String>,
    /// Only agents that have this model.
    model: Option<String>,
    /// At most so many, 1 to 100000.
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// Only agents after this one: the `x-next-cursor` header of the page before.
    cursor: Option<AgentId>,
}

impl ListQuery {
    fn is_empty(&self) -> bool {
        let Self {
            status,
            label,
            model,
            limit,
            cursor,
        } = self;
        status.is_none()
            && label.is_none()
            && model.is_none()
            && limit.is_none()
            && cursor.is_none()
    }

    fn takes(&self, agent: &AgentSnapshot) -> bool {
        let has_label = |wanted: &str| match wanted.split_once('=') {
            Some((key, value)) => agent.stored.labels.get(key).is_some_and(|has| has == value),
            None => agent.stored.labels.contains_key(wanted),
        };
        self.cursor.is_none_or(|cursor| agent.id() > cursor)
            && self.status.is_none_or(|status| agent.status == status)
            && self.label.as_deref().is_none_or(has_label)
            && self
                .model
                .as_deref()
                .is_none_or(|model| agent.has_model(model))
    }
}

/// Lists agents, sorted by id.
#[utoipa::path(
    get, path = "/api/agents", tag = "agents", params(ListQuery),
    responses(
        (status = 200, description = "The agents", body = [AgentView],
         headers(("x-next-cursor" = String, description = "Present when there are more"))),
        (status = 400, description = "An unusable filter", body = Problem),
    )
)]
pub async fn list_agents(
    State(registry): State<Registry>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    if query.is_empty() {
        let json = [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )];
        return Ok((json, registry.list_json()).into_response());
    }
    let limit = query.limit.unwrap_or(usize::MAX);
    if limit == 0 || query.limit.is_some_and(|limit| limit > 100_000) {
        return Err(ApiError::field("limit", "must be 1 to 100000"));
    }
    let mut agents = registry.snapshot();
    agents.retain(|agent| query.takes(agent));
    let mut headers = HeaderMap::new();
    if agents.len() > limit {
        agents.truncate(limit);
        let cursor = agents
            .last()
            .map(|agent| agent.id().to_string())
            .unwrap_or_default();
        let cursor = HeaderValue::from_str(&cursor).expect("a UUID is a header value");
        headers.insert(NEXT_CURSOR, cursor);
    }
    Ok((headers, Json(agents)).into_response())
}

/// Shows one agent.
#[utoipa::path(
    get, path = "/api/agents/{id}", tag = "agents", params(("id" = AgentId, Path)),
    responses(
        (status = 200, description = "The agent", body = AgentView),
        (status = 400, description = "The id is no UUID", body = Problem),
        (status = 404, description = "`unknown_agent`", body = Problem),
    )
)]
pub async fn get_agent(
    State(registry): State<Registry>,
    id: AgentPath,
) -> Result<Json<AgentSnapshot>, ApiError> {
    registry
        .get(agent_id(id)?)
        .map(Json)
        .ok_or(ApiError::UnknownAgent)
}

/// Changes what the operator may change: display name, labels, notes, draining,
/// capacity.
#[utoipa::path(
    patch, path = "/api/agents/{id}", tag = "agents", params(("id" = AgentId, Path)),
    request_body = PatchAgentRequest,
    responses(
        (status = 200, description = "The agent as it is now", body = AgentView),
        (status = 400, description = "Invalid", body = Problem),
        (status = 404, description = "`unknown_agent`", body = Problem),
        (status = 503, description = "Not durable, nothing changed", body = Problem),
    )
)]
pub async fn patch_agent(
    State(registry): State<Registry>,
    id: AgentPath,
    JsonBody(request): JsonBody<PatchAgentRequest>,
) -> Result<Json<AgentSnapshot>, ApiError> {
    let id = agent_id(id)?;
    validate::patch(&request)?;
    registry.patch(id, request).await?;
    registry.get(id).map(Json).ok_or(ApiError::UnknownAgent)
}

/// Forgets an agent. If it still runs, it registers again.
#[utoipa::path(
    delete, path = "/api/agents/{id}", tag = "agents", params(("id" = AgentId, Path)),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 400, description = "Invalid", body = Problem),
        (status = 404, description = "`unknown_agent`", body = Problem),
        (status = 503, description = "Not durable, nothing changed", body = Problem),
    )
)]
pub async fn remove_agent(
    State(registry): State<Registry>,
    State(tunnels): State<Tunnels>,
    id: AgentPath,
) -> Result<StatusCode, ApiError> {
    let id = agent_id(id)?;
    let tunnel = registry.tunnel_of(id);
    registry.remove(id).await?;
    if let Some(tunnel) = tunnel {
        tunnels.close(tunnel);
    }
    Ok(StatusCode::NO_CONTENT)
}

/// The `{id}` of a route, not yet known to be one.
pub type AgentPath = Path<String>;

/// Reads the `{id}` of a route.
pub fn agent_id(Path(text): AgentPath) -> Result<AgentId, ApiError> {
    text.parse()
        .map_err(|_not_a_uuid| ApiError::field("id", "must be a UUID"))
}
