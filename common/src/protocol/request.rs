//! The request log: what happened to one client's request. Metadata only.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::AgentId;

/// Which API a client spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Ollama's own.
    Ollama,
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
}

impl Protocol {
    /// Every protocol, in the order of its number as `usize`.
    pub const ALL: [Self; 3] = [Self::Ollama, Self::OpenAi, Self::Anthropic];

    /// Returns the word that stands for it in JSON and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
        }
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestState {
    /// Its body is being read.
    Arriving,
    /// It waits for its turn.
    Queued,
    /// It was sent to an agent, which has not begun to answer.
    Attempting,
    /// The answer is on its way to the client.
    Streaming,
    /// It is over.
    Ended,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestOutcome {
    /// An agent answered to the end.
    Success,
    /// The answer of an agent was an error of its own, or broke off.
    Failed,
    /// The client left, or an operator cancelled it, as `message` then says.
    Cancelled,
    /// No agent answered: the coordinator did.
    Refused,
}

/// One request, as it is or as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RequestView {
    /// What it is called: the client's `x-request-id`, if it sent a usable one. Clients may send the
    /// same one twice.
    pub id: String,
    /// When it arrived.
    pub started_at: DateTime<Utc>,
    /// Where it came from.
    #[schema(value_type = String)]
    pub client: IpAddr,
    /// Whether it carried a key. The key itself is not kept.
    pub has_key: bool,
    /// Its HTTP method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Which API it spoke, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The model it asked for, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Whether it asked for a stream.
    pub streamed: bool,
    /// How far it has come.
    pub state: RequestState,
    /// Its position in the queue while it waits: 1 is next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// What became of it, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RequestOutcome>,
    /// The HTTP status that the client got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why it was refused or cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The agent whose answer the client got, once it gets one: not always the last one tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// The tries at agents, in order.
    pub attempts: Vec<AttemptView>,
    /// Time in the queue.
    pub queue_ms: u64,
    /// From its arrival to the first byte of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// From its arrival to its end, or until now.
    pub duration_ms: u64,
    /// Bytes of the answer's body, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Chunks of the answer's body, at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunks: Option<u64>,
    /// Tokens of the prompt, as the runtime counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, as the runtime counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_tokens: Option<u64>,
}

/// One try at an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// The agent.
    pub agent_id: AgentId,
    /// What it was called then.
    pub agent_name: String,
    /// From the request's arrival to the start of this attempt.
    pub started_after_ms: u64,
    /// How long it took, or has taken so far.
    pub duration_ms: u64,
    /// What became of it: `success`, `cancelled`, or how the agent failed (`not_connected`,
    /// `broken`, `silent`, `stalled`, `status`, `busy`, `no_model`, `no_route`).
    /// Absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The status with which the agent failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_status: Option<u16>,
    /// Why this agent was picked.
    pub choice: ChoiceView,
}

/// Among whom an agent was picked, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChoiceView {
    /// The policy that picked: `least-loaded`, `round-robin`, `weighted`, `prefix-affinity`.
    pub policy: String,
    /// What decided: `only`, `warm`, `fits`, `least_loaded`, `random`, `turn`, `weight`, `affinity`,
    /// `probation`, `panic`, `freed`.
    pub reason: String,
    /// Time in the queue before it.
    pub queued_ms: u64,
    /// How many agents have the model, whether they could take the request or not.
    pub candidates: usize,
    /// The agent that was picked, then the best of the others that were looked at; at most eight.
    pub considered: Vec<ConsideredView>,
}

/// One agent as it was when it or another one was picked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConsideredView {
    /// Its id.
    pub agent_id: AgentId,
    /// What it was called then.
    pub agent_name: String,
    /// The requests it was serving.
    pub in_flight: u32,
    /// How many it serves at once.
    pub capacity: u32,
    /// Whether it had the model in memory.
    pub warm: bool,
    /// Whether the model fits its free GPU memory, when that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fits: Option<bool>,
    /// How long it takes for this model, as a multiple of what all its agents take on average.
    pub slowness: f32,
    /// Expected work before an answer: the lower the better.
    pub score: f32,
    /// Why it could not take the request: `not_routable`, `other_api`, `not_named`, `tried`,
    /// `no_model`, `ejected`, `busy`, `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}
