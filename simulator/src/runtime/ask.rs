//! What a request asks a model for, whatever its protocol, and how its answer begins.

use std::num::NonZeroU32;
use std::sync::Arc;

use ollama_coordinator_common::protocol::runtime::Model;
use serde_json::Value;

use super::generation::Generation;
use super::message::{Message, answers_a_call, chat_text};
use super::reply::ApiError;
use super::residency::KeepAlive;
use super::routes::Call;
use super::tools;
use super::words::Sequence;

/// What text a client wants from a model.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    pub(super) prompt: String,
    pub(super) limit: Option<NonZeroU32>,
    pub(super) keep_alive: Option<KeepAlive>,
    /// `None` leaves it to the model.
    pub(super) thinks: Option<bool>,
    pub(super) tools: &'a [Value],
    pub(super) tool_choice: Option<&'a Value>,
}

impl<'a> Ask<'a> {
    /// Reads a chat; after the result of a tool it asks for words.
    pub(super) fn chat(messages: &[Message], tools: &'a [Value]) -> Result<Self, ApiError> {
        let tools = if answers_a_call(messages) { &[] } else { tools };
        Ok(Self {
            prompt: chat_text(messages)?,
            tools,
            ..Self::default()
        })
    }
}

impl Call {
    /// Waits for the model and begins its answer.
    ///
    /// # Errors
    /// The model cannot do what is asked for, or too many requests wait.
    pub(super) async fn begin(&self, model: &Model, ask: Ask<'_>) -> Result<Generation, ApiError> {
        let thinks = ask.thinks.unwrap_or_else(|| can(model, "thinking"));
        if !ask.tools.is_empty() {
            require(model, "tools", "tools")?;
        }
        if thinks {
            require(model, "thinking", "thinking")?;
        }
        let words = Sequence::new(self.script.seed, &model.name, &ask.prompt);
        let tool_call = tools::choose(ask.tools, ask.tool_choice, words);
        let seat = self
            .engine
            .seat(model, ask.keep_alive, &self.script)
            .await?;
        let script = Arc::clone(&self.script);
        let generation = Generation::new(seat, script, &ask.prompt, ask.limit);
        Ok(generation.with_thoughts(thinks).with_call(tool_call))
    }
}

/// Refuses what the model has no capability for, in Ollama's words.
pub(super) fn require(model: &Model, capability: &str, what: &str) -> Result<(), ApiError> {
    if can(model, capability) {
        return Ok(());
    }
    let name = &model.name;
    Err(ApiError::bad_request(format!(
        "{name:?} does not support {what}"
    )))
}

fn can(model: &Model, capability: &str) -> bool {
    model.capabilities.iter().any(|known| known == capability)
}
