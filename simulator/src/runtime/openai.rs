//! The OpenAI routes that generate text: chat completions and the older completions.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, require};
use super::generation::{Step, Usage, Whole};
use super::message::Message;
use super::prompt::{limit_from, texts};
use super::reply::{ApiError, EVENT_STREAM, Reply, event};
use super::routes::Call;
use super::script::RuntimeScript;
use super::tools::ToolCall;
use super::words::Sequence;

#[derive(Debug, Deserialize)]
struct CompletionRequest {
    model: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    prompt: Option<Value>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    reasoning_effort: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Chat completions and the older completions differ in names only.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Chat,
    Text,
}

/// What every object of one answer has in common.
#[derive(Debug, Clone)]
struct Frame {
    kind: Kind,
    id: String,
    model: String,
    include_usage: bool,
    script: Arc<RuntimeScript>,
}

pub(super) async fn chat_completions(call: &Call) -> Result<Reply, ApiError> {
    let request: CompletionRequest = call.json()?;
    if request.messages.is_empty() {
        return Err(ApiError::bad_request("[] is too short - 'messages'"));
    }
    let tools = request.tools.as_deref().unwrap_or_default();
    let ask = Ask::chat(&request.messages, tools)?;
    complete(call, &request, Kind::Chat, ask).await
}

pub(super) async fn completions(call: &Call) -> Result<Reply, ApiError> {
    let request: CompletionRequest = call.json()?;
    let prompt = texts(request.prompt.as_ref()).unwrap_or_default();
    let ask = Ask {
        prompt: prompt.join("\n"),
        ..Ask::default()
    };
    complete(call, &request, Kind::Text, ask).await
}

async fn complete(
    call: &Call,
    request: &CompletionRequest,
    kind: Kind,
    ask: Ask<'_>,
) -> Result<Reply, ApiError> {
    let model = call.model(request.model.as_deref(), None)?;
    let what = match kind {
        Kind::Chat => "chat",
        Kind::Text => "generate",
    };
    require(model, "completion", what)?;
    let number = Sequence::new(call.script.seed, &model.name, &ask.prompt).next_number();
    let options = request.stream_options.as_ref();
    let frame = Frame {
        kind,
        id: match kind {
            Kind::Chat => format!("chatcmpl-{}", number % 1000),
            Kind::Text => format!("cmpl-{}", number % 1000),
        },
        model: request.model.clone().unwrap_or_default(),
        include_usage: options.is_some_and(|options| options.include_usage),
        script: Arc::clone(&call.script),
    };
    let ask = Ask {
        limit: limit_from(request.max_completion_tokens.or(request.max_tokens)),
        thinks: request
            .reasoning_effort
            .as_deref()
            .map(|effort| effort != "none"),
        tool_choice: request.tool_choice.as_ref(),
        ..ask
    };
    let mut generation = call.begin(model, ask).await?;
    if request.stream {
        let format = move |step| frame.events(step);
        return Reply::stream(EVENT_STREAM, generation, format).await;
    }
    let whole = generation.collect().await;
    let whole = whole.ok_or_else(ApiError::simulated)?;
    Ok(Reply::json(&frame.whole(&whole)))
}

impl Frame {
    /// A stream that breaks just ends, without `[DONE]`.
    fn events(&self, step: Step) -> Option<Bytes> {
        match step {
            Step::Thought(thought) => Some(self.chunk("", &thought, None)),
            Step::Token(text) => Some(self.chunk(&text, "", None)),
            Step::Call(call) => Some(self.chunk("", "", Some(&call))),
            Step::Broken => None,
            Step::Done(usage) => {
                let choice = self.choice("delta", &said("", "", None), Some(&usage));
                let mut events = event(&self.object("chunk", vec![choice]));
                if self.include_usage {
                    let mut last = self.object("chunk", Vec::new());
                    last["usage"] = usage_of(&usage);
                    events.push_str(&event(&last));
                }
                events.push_str("data: [DONE]\n\n");
                Some(events.into())
            }
        }
    }

    fn chunk(&self, text: &str, thoughts: &str, call: Option<&ToolCall>) -> Bytes {
        let choice = self.choice("delta", &said(text, thoughts, call), None);
        event(&self.object("chunk", vec![choice])).into()
    }

    fn whole(&self, whole: &Whole) -> Value {
        let said = said(&whole.text, &whole.thoughts, whole.call.as_ref());
        let choice = self.choice("message", &said, Some(&whole.usage));
        let mut object = self.object("", vec![choice]);
        object["usage"] = usage_of(&whole.usage);
        object
    }

    fn choice(&self, part: &str, said: &Value, end: Option<&Usage>) -> Value {
        let reason = end.map(|usage| {
            if usage.called {
                "tool_calls"
            } else {
                usage.done_reason.as_str()
            }
        });
        let mut choice = json!({ "index": 0, "finish_reason": reason });
        match self.kind {
            Kind::Chat => choice[part] = said.clone(),
            Kind::Text => choice["text"] = said["content"].clone(),
        }
        choice
    }

    fn object(&self, part: &str, choices: Vec<Value>) -> Value {
        let object = match (self.kind, part) {
            (Kind::Chat, "chunk") => "chat.completion.chunk",
            (Kind::Chat, _) => "chat.completion",
            (Kind::Text, _) => "text_completion",
        };
        json!({
            "id": self.id,
            "object": object,
            "created": self.script.unix_time(),
            "model": self.model,
            "system_fingerprint": "fp_simulated",
            "choices": choices,
        })
    }
}

fn said(text: &str, thoughts: &str, call: Option<&ToolCall>) -> Value {
    let mut said = json!({ "role": "assistant", "content": text });
    if !thoughts.is_empty() {
        said["reasoning"] = json!(thoughts);
    }
    if let Some(call) = call {
        said["tool_calls"] = json!([{
            "index": 0, "id": format!("call_{}", call.id), "type": "function",
            "function": { "name": call.name, "arguments": call.arguments.to_string() },
        }]);
    }
    said
}

fn usage_of(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.tokens,
        "total_tokens": usage.prompt_tokens + usage.tokens,
    })
}
