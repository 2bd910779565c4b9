//! What an agent says about the model runtime that it fronts.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The family of API that a runtime speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeKind {
    /// Ollama's own API (and its OpenAI and Anthropic routes).
    #[default]
    Ollama,
    /// Only the OpenAI API, as llama.cpp's server, vLLM and others speak it.
    Openai,
}

/// Whether the runtime answers the agent that fronts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeStatus {
    /// The last probe was answered.
    Running,
    /// The last probe was not answered: the runtime is missing, stopped or stuck.
    #[default]
    NotAnswering,
}

/// One look at a runtime: what it is, whether it answers and what it can serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuntimeReport {
    /// Which API it speaks.
    #[serde(default)]
    pub kind: RuntimeKind,
    /// Whether it answers.
    #[serde(default)]
    pub status: RuntimeStatus,
    /// Its version, when it told one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The models it can serve, sorted by name.
    #[serde(default)]
    pub models: Vec<Model>,
    /// The models in its memory now, sorted by name.
    #[serde(default)]
    pub loaded_models: Vec<LoadedModel>,
    /// How many requests it serves at once, when it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub slots: Option<NonZeroU32>,
}

impl RuntimeReport {
    /// Returns whether the same requests can be served as with `other`: what is in memory changes
    /// with every request, what can be served at all does not.
    pub fn serves_the_same_as(&self, other: &Self) -> bool {
        self.status == other.status
            && self.models.len() == other.models.len()
            && self
                .models
                .iter()
                .zip(&other.models)
                .all(|(a, b)| a.name == b.name)
    }
}

/// A model that a runtime can serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Model {
    /// Full name with tag, such as `llama3.2:latest`.
    pub name: String,
    /// Bytes on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Content digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was last changed, as the runtime wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified_at: Option<String>,
    /// What is known of its make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<ModelDetails>,
    /// What it can do, such as `completion`, `tools`, `vision`, `embedding`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

impl Model {
    /// Makes a model of which only the name is known.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            size: None,
            digest: None,
            modified_at: None,
            details: None,
            capabilities: Vec::new(),
        }
    }
}

/// Ollama's `details` of a model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelDetails {
    /// The model it was made from.
    #[serde(default)]
    pub parent_model: String,
    /// File format, such as `gguf`.
    #[serde(default)]
    pub format: String,
    /// Architecture family.
    #[serde(default)]
    pub family: String,
    /// All families.
    #[serde(default)]
    pub families: Option<Vec<String>>,
    /// Such as `8.0B`.
    #[serde(default)]
    pub parameter_size: String,
    /// Such as `Q4_K_M`.
    #[serde(default)]
    pub quantization_level: String,
}

/// A model in a runtime's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadedModel {
    /// Full name with tag.
    pub name: String,
    /// Bytes of memory it takes in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes of it in GPU memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_vram: Option<u64>,
    /// When the runtime will unload it, as the runtime wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Tokens of context it was loaded with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_length: Option<u64>,
}
