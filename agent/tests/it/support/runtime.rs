//! A runtime that looks like Ollama from outside.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use ollama_coordinator_common::base_url::BaseUrl;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::server::{Reserved, Server};

/// An Ollama with models under the test's control.
#[derive(Debug)]
pub(crate) struct FakeRuntime {
    server: Server,
    models: Arc<Mutex<Vec<&'static str>>>,
}

impl FakeRuntime {
    pub(crate) fn start(models: &[&'static str]) -> Self {
        Self::start_at(Reserved::new(), models)
    }

    pub(crate) fn start_at(reserved: Reserved, models: &[&'static str]) -> Self {
        let models = Arc::new(Mutex::new(models.to_vec()));
        let router = Router::new()
            .route(
                "/api/version",
                get(async || Json(json!({ "version": "0.12.6" }))),
            )
            .route("/api/tags", get(list_models))
            .route("/api/ps", get(async || Json(json!({ "models": [] }))))
            .with_state(Arc::clone(&models));
        Self {
            server: reserved.serve(router),
            models,
        }
    }

    pub(crate) fn url(&self) -> BaseUrl {
        self.server.url()
    }

    pub(crate) fn set_models(&self, models: &[&'static str]) {
        *self.models.lock() = models.to_vec();
    }

    pub(crate) async fn stop(self) -> Reserved {
        self.server.stop().await
    }
}

async fn list_models(State(models): State<Arc<Mutex<Vec<&'static str>>>>) -> Json<Value> {
    let models = models.lock();
    let models: Vec<Value> = models.iter().map(|name| json!({ "name": name })).collect();
    Json(json!({ "models": models }))
}
