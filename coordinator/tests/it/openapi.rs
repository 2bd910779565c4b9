//! The contract: what is committed is what is served, and what is described is there.

use std::path::PathBuf;

use http::{Method, StatusCode};
use ollama_coordinator::api::openapi;
use ollama_coordinator_common::id::AgentId;
use serde_json::Value;

use crate::support::api::request;
use crate::support::coordinator::TestCoordinator;

/// Set to rewrite the committed contract.
const BLESS: &str = "OLLAMA_COORDINATOR_BLESS";

#[test]
fn committed_contract_is_the_one_in_the_code() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let document = openapi::document();
    if std::env::var_os(BLESS).is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &document).unwrap();
    }

    let committed = std::fs::read_to_string(&path).unwrap_or_default();

    assert!(
        committed == document,
        "docs/openapi.json is out of date; run the tests with {BLESS}=1 and commit it"
    );
}

#[tokio::test]
async fn served_contract_is_the_one_in_the_code() {
    let coordinator = TestCoordinator::new().await;

    let served = coordinator.api.get("/api/openapi.json").await.text().await;

    assert_eq!(served, openapi::document());
}

#[tokio::test]
async fn everything_in_the_contract_is_there() {
    let coordinator = TestCoordinator::new().await;
    let contract: Value = serde_json::from_str(&openapi::document()).unwrap();
    let mut operations = 0;

    for (path, methods) in contract["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.replace("{id}", &AgentId::new().to_string());
            let body = if operation.get("requestBody").is_some() {
                "{}"
            } else {
                ""
            };

            let mut answer = coordinator
                .api
                .send(request(method.clone(), &path, body))
                .await;

            let status = answer.status.as_u16().to_string();
            assert!(
                operation["responses"].get(&status).is_some(),
                "{method} {path}: {status}"
            );
            if answer.status == StatusCode::NOT_FOUND {
                let code = answer.problem(404).await["code"].clone();
                let is_known = code == "unknown_agent" || code == "unknown_request";
                assert!(is_known, "{method} {path}: {code}");
            }
            operations += 1;
        }
    }

    assert!(operations >= 12, "{operations}");
}
