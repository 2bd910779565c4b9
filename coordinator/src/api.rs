//! The management API: the whole route table on one screen.
//!
//! Handlers extract, make one call and map the answer; validation lives beside them, decisions in
//! [`crate::registry`].

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, Method, header};
use axum::routing::{delete, get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::state::AppState;

pub mod about;
pub mod address;
pub mod agents;
pub mod auth;
pub mod body;
pub mod error;
pub mod events;
pub mod health;
pub mod heartbeat;
pub mod history;
pub mod metrics;
pub mod openapi;
pub mod requests;
pub mod tunnel;
pub mod validate;

/// The header that names where the next page of a list starts.
pub const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

/// Returns whether a path belongs to the management API; any other one is the model APIs'.
pub fn owns(path: &str) -> bool {
    let is_below = |root: &str| {
        let rest = path.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match path {
        "/healthz" | "/readyz" | "/metrics" | "/api/openapi.json" | "/api/about"
        | "/api/history" => true,
        _ => is_below("/api/agents") || is_below("/api/events") || is_below("/api/requests"),
    }
}

/// Returns the management routes.
pub fn router() -> Router<AppState> {
    Router::new()
        .route(
            "/api/agents",
            get(agents::list_agents).post(agents::register_agent),
        )
        .route("/api/agents/register", post(agents::register_agent))
        .route(
            "/api/agents/{id}",
            get(agents::get_agent)
                .patch(agents::patch_agent)
                .delete(agents::remove_agent),
        )
        .route("/api/agents/{id}/heartbeat", post(heartbeat::renew_lease))
        .route("/api/agents/{id}/session", delete(heartbeat::end_session))
        .route("/api/agents/{id}/tunnel", get(tunnel::open_tunnel))
        .route("/api/events", get(events::stream_events))
        .route("/api/events/snapshot", get(events::get_snapshot))
        .route("/api/events/log", get(events::list_happenings))
        .route("/api/history", get(history::get_history))
        .route("/api/about", get(about::get_about))
        .route("/api/requests", get(requests::list_requests))
        .route("/api/requests/{id}", get(requests::get_request))
        .route("/api/requests/{id}/cancel", post(requests::cancel_request))
        .route("/api/openapi.json", get(openapi::get_openapi))
        .route("/healthz", get(health::get_liveness))
        .route("/readyz", get(health::get_readiness))
        .route("/metrics", get(metrics::get_metrics))
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(
            open_to_all_origins()
                .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
                .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION])
                .expose_headers([NEXT_CURSOR, header::RETRY_AFTER]),
        )
}

/// Lets pages of any origin call: there is no access control yet, so whoever can reach the port
/// can call it from anywhere, and that a page does so on somebody's behalf is not prevented.
pub fn open_to_all_origins() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::any())
        .max_age(Duration::from_hours(1))
}
