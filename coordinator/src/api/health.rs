//! Whether the process lives, and whether it can take traffic.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ollama_coordinator_common::id::InstanceId;
use ollama_coordinator_common::probe::COORDINATOR_SERVICE;
use serde::Serialize;
use utoipa::ToSchema;

use crate::registry::Registry;
use crate::state::Process;
use crate::storage::writer::StorageHealth;

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub struct Liveness {
    /// Always `ok`.
    #[schema(value_type = String)]
    status: &'static str,
    /// Always `ollama-coordinator`: tells a coordinator from a runtime.
    #[schema(value_type = String)]
    service: &'static str,
    /// The coordinator's version.
    #[schema(value_type = String)]
    version: &'static str,
    /// This run of the process.
    instance_id: InstanceId,
}

/// Says that the process lives.
#[utoipa::path(get, path = "/healthz", tag = "process",
    responses((status = 200, description = "It lives", body = Liveness)))]
pub async fn get_liveness(State(registry): State<Registry>) -> Json<Liveness> {
    Json(Liveness {
        status: "ok",
        service: COORDINATOR_SERVICE,
        version: env!("CARGO_PKG_VERSION"),
        instance_id: registry.instance_id(),
    })
}

/// Whether the coordinator can take traffic, and what an operator should know.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready` or `stopping`.
    #[schema(value_type = String)]
    status: &'static str,
    /// `ok`, or what keeps changes from being stored.
    storage: String,
    /// How the registry was come by at the start: `clean`, `new`, `imported`,
    /// `quarantined_records`, `damaged_journal`, `recovered_from_backup` or `recovered_empty`.
    #[schema(value_type = String)]
    registry: &'static str,
    /// The same in words, with the files kept as evidence.
    registry_detail: String,
    /// Agents known.
    agents: usize,
    /// Agents online.
    online: usize,
    /// Agents presumed online that have not been heard of since the start.
    recovering: usize,
}

/// Says whether the coordinator can take traffic.
#[utoipa::path(get, path = "/readyz", tag = "process",
    responses((status = 200, description = "It can", body = Readiness),
              (status = 503, description = "It is stopping", body = Readiness)))]
pub async fn get_readiness(
    State(registry): State<Registry>,
    State(process): State<Process>,
) -> (StatusCode, Json<Readiness>) {
    let counts = registry.counts();
    let (code, status) = if process.shutdown.is_stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else {
        (StatusCode::OK, "ready")
    };
    let storage = match process.writer.health() {
        StorageHealth::Healthy => "ok".to_owned(),
        StorageHealth::Failing { detail, .. } => format!("failing: {detail}"),
    };
    let readiness = Readiness {
        status,
        storage,
        registry: process.recovery.code(),
        registry_detail: process.recovery.to_string(),
        agents: counts.known,
        online: counts.online,
        recovering: counts.presumed,
    };
    (code, Json(readiness))
}
