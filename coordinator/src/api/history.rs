//! The load of the last day.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::error::Problem;
use ollama_coordinator_common::protocol::history::{HistoryView, Resolution};
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use crate::history::History;

/// Whose load, and how finely.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// This agent's; the fleet's when nothing is said.
    agent: Option<AgentId>,
    /// The last minutes, or the last day.
    #[serde(default)]
    #[param(inline)]
    resolution: Resolution,
}

/// Shows the load of an agent, or of the fleet. It is in memory, so it begins with this run.
#[utoipa::path(
    get, path = "/api/history", tag = "history", params(HistoryQuery),
    responses(
        (status = 200, description = "The numbers; none of an agent that is unknown", body = HistoryView),
        (status = 400, description = "An unusable query", body = Problem),
    )
)]
pub async fn get_history(
    State(history): State<History>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryView>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::field("query", error.body_text()))?;
    Ok(Json(match query.agent {
        Some(agent) => history.of_agent(agent, query.resolution),
        None => history.of_fleet(query.resolution),
    }))
}
