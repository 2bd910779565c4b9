//! The request log.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::request::{RequestOutcome, RequestView};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::error::ApiError;
use crate::proxy::story::Storybook;
use crate::proxy::story::reading::CancelError;
use crate::proxy::story::view::Filter;

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 10_000;

/// Which requests to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RequestsQuery {
    /// Only requests for this model.
    model: Option<String>,
    /// Only requests that were sent to this agent.
    agent: Option<AgentId>,
    /// Only requests that ended so.
    #[param(inline)]
    outcome: Option<RequestOutcome>,
    /// Only requests that run.
    #[param(inline)]
    state: Option<StateFilter>,
    /// At most so many, 1 to 10000; 100 when nothing is said.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
}

/// Which state requests are to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateFilter {
    /// They run.
    Live,
}

/// Lists requests of clients to models: those that run, then those that have ended, newest first.
#[utoipa::path(
    get, path = "/api/requests", tag = "requests", params(RequestsQuery),
    responses(
        (status = 200, description = "The requests", body = [RequestView]),
        (status = 400, description = "An unusable filter", body = Problem),
    )
)]
pub async fn list_requests(
    State(storybook): State<Storybook>,
    query: Result<Query<RequestsQuery>, QueryRejection>,
) -> Result<Json<Vec<RequestView>>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::field("limit", "must be 1 to 10000"));
    }
    let filter = Filter {
        model: query.model,
        agent: query.agent,
        outcome: query.outcome,
        is_live: query.state == Some(StateFilter::Live),
    };
    Ok(Json(storybook.requests(&filter, limit)))
}

/// Shows one request; the newest, if several have this id.
#[utoipa::path(
    get, path = "/api/requests/{id}", tag = "requests",
    params(("id" = String, Path, description = "What it is called")),
    responses(
        (status = 200, description = "The request", body = RequestView),
        (status = 404, description = "`unknown_request`", body = Problem),
    )
)]
pub async fn get_request(
    State(storybook): State<Storybook>,
    Path(id): Path<String>,
) -> Result<Json<RequestView>, ApiError> {
    let request = storybook.request(&id);
    request.map(Json).ok_or(ApiError::UnknownRequest)
}

/// Ends a request that runs: its client is told so, and the work on the machine ends.
#[utoipa::path(
    post, path = "/api/requests/{id}/cancel", tag = "requests",
    params(("id" = String, Path, description = "What it is called; of several, the newest that runs")),
    responses(
        (status = 202, description = "It ends now"),
        (status = 404, description = "`unknown_request`", body = Problem),
        (status = 409, description = "`request_ended`", body = Problem),
    )
)]
pub async fn cancel_request(
    State(storybook): State<Storybook>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    storybook.cancel(&id)?;
    Ok(StatusCode::ACCEPTED)
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::Unknown => Self::UnknownRequest,
            CancelError::Ended => Self::RequestEnded,
        }
    }
}
