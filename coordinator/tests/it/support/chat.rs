//! Questions, and runtimes that answer them.

use std::num::NonZeroU32;

use http::StatusCode;
use ollama_coordinator_common::protocol::runtime::LoadedModel;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::RuntimeScript;
use serde_json::{Value, json};

use super::agent::FakeAgent;
use super::api::Api;

/// The model of a default script.
pub(crate) const MODEL: &str = "simulated-small";

/// Starts a runtime and an agent in front of it that gets requests.
pub(crate) async fn joined(api: Api, script: RuntimeScript) -> (ScriptedRuntime, FakeAgent) {
    let script = RuntimeScript {
        answer_tokens: NonZeroU32::new(20),
        ..script
    };
    let runtime = ScriptedRuntime::start(script)
        .await
        .expect("a port is free");
    let agent = FakeAgent::in_front_of(&runtime, "gpu");
    agent.join(api).await;
    (runtime, agent)
}

pub(crate) fn chat(prompt: &str) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": prompt }] })
}

/// Asks so many times, each of which must be answered.
pub(crate) async fn ask(api: Api, times: usize) {
    for _ in 0..times {
        let mut answer = api.post("/api/chat", &chat("hi")).await;
        let text = answer.text().await;
        assert_eq!(answer.status, StatusCode::OK, "{text}");
    }
}

/// Says that the model is in memory.
pub(crate) fn in_memory() -> LoadedModel {
    LoadedModel {
        name: format!("{MODEL}:latest"),
        size: None,
        size_vram: None,
        expires_at: None,
        context_length: None,
    }
}
