//! The Anthropic routes: messages and the count of their tokens.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, require};
use super::generation::{Step, Usage, Whole};
use super::message::{Message, chat_text};
use super::prompt::limit_from;
use super::reply::{ApiError, EVENT_STREAM, Reply, named_event};
use super::routes::Call;
use super::script::DoneReason;
use super::tools::ToolCall;
use super::words::Sequence;

const SIGNATURE: &str = "simulated";

#[derive(Debug, Deserialize)]
struct MessagesRequest {
    model: Option<String>,
    max_tokens: Option<i64>,
    system: Option<Value>,
    #[serde(default)]
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    thinking: Option<Thinking>,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    r#type: String,
}

impl MessagesRequest {
    fn read(call: &Call) -> Result<Self, ApiError> {
        let mut request: Self = call.json()?;
        if request.messages.is_empty() {
            return Err(ApiError::bad_request("messages is required"));
        }
        if let Some(system) = request.system.take() {
            request.messages.insert(0, Message::new("system", system));
        }
        Ok(request)
    }
}

pub(super) async fn messages(call: &Call) -> Result<Reply, ApiError> {
    let request = MessagesRequest::read(call)?;
    let model = call.model(request.model.as_deref(), None)?;
    let limit = limit_from(request.max_tokens)
        .ok_or_else(|| ApiError::bad_request("max_tokens is required and must be positive"))?;
    require(model, "completion", "chat")?;
    let thinking = request.thinking.as_ref();
    let ask = Ask {
        limit: Some(limit),
        thinks: thinking.map(|thinking| thinking.r#type != "disabled"),
        tool_choice: request.tool_choice.as_ref(),
        ..Ask::chat(&request.messages, &request.tools)?
    };
    let number = Sequence::new(call.script.seed, &model.name, &ask.prompt).next_number();
    let mut generation = call.begin(model, ask).await?;
    let mut writer = Writer {
        id: format!("msg_{number:016x}"),
        model: request.model.clone().unwrap_or_default(),
        prompt_tokens: generation.prompt_tokens(),
        open: None,
        blocks: 0,
        has_begun: false,
    };
    if request.stream {
        let format = move |step| writer.events(step);
        return Reply::stream(EVENT_STREAM, generation, format).await;
    }
    let whole = generation.collect().await;
    let whole = whole.ok_or_else(ApiError::simulated)?;
    Ok(Reply::json(&writer.whole(&whole)))
}

pub(super) fn count_tokens(call: &Call) -> Result<Reply, ApiError> {
    let request = MessagesRequest::read(call)?;
    call.model(request.model.as_deref(), None)?;
    let tokens = chat_text(&request.messages)?.split_whitespace().count();
    Ok(Reply::json(&json!({ "input_tokens": tokens })))
}

/// Writes one answer, block by block.
struct Writer {
    id: String,
    model: String,
    prompt_tokens: u64,
    /// The kind of the block that is being written.
    open: Option<BlockKind>,
    /// How many blocks have begun.
    blocks: u64,
    has_begun: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Thinking,
    Text,
    Call,
}

impl Writer {
    /// A stream that breaks just ends, without `message_stop`.
    fn events(&mut self, step: Step) -> Option<Bytes> {
        let mut events = String::new();
        if !self.has_begun {
            self.has_begun = true;
            events.push_str(&named_event(&json!({
                "type": "message_start", "message": self.message(&[], None),
            })));
        }
        match step {
            Step::Thought(thought) => {
                let empty = thinking_block("", "");
                self.begin(BlockKind::Thinking, &empty, &mut events);
                let delta = json!({ "type": "thinking_delta", "thinking": thought });
                self.delta(&delta, &mut events);
            }
            Step::Token(text) => {
                self.begin(BlockKind::Text, &text_block(""), &mut events);
                let delta = json!({ "type": "text_delta", "text": text });
                self.delta(&delta, &mut events);
            }
            Step::Call(call) => {
                let empty = call_block(&call, &json!({}));
                self.begin(BlockKind::Call, &empty, &mut events);
                let input = call.arguments.to_string();
                let delta = json!({ "type": "input_json_delta", "partial_json": input });
                self.delta(&delta, &mut events);
            }
            Step::Done(usage) => {
                self.end_block(&mut events);
                events.push_str(&named_event(&json!({
                    "type": "message_delta",
                    "delta": { "stop_reason": stop_reason(&usage), "stop_sequence": null },
                    "usage": { "input_tokens": usage.prompt_tokens, "output_tokens": usage.tokens },
                })));
                events.push_str(&named_event(&json!({ "type": "message_stop" })));
            }
            Step::Broken => return None,
        }
        Some(events.into())
    }

    fn begin(&mut self, kind: BlockKind, empty: &Value, events: &mut String) {
        if self.open == Some(kind) {
            return;
        }
        self.end_block(events);
        self.open = Some(kind);
        self.blocks += 1;
        events.push_str(&named_event(&json!({
            "type": "content_block_start", "index": self.blocks - 1, "content_block": empty,
        })));
    }

    fn delta(&self, delta: &Value, events: &mut String) {
        events.push_str(&named_event(&json!({
            "type": "content_block_delta", "index": self.blocks - 1, "delta": delta,
        })));
    }

    fn end_block(&mut self, events: &mut String) {
        let ended = self.open.take();
        if ended == Some(BlockKind::Thinking) {
            let delta = json!({ "type": "signature_delta", "signature": SIGNATURE });
            self.delta(&delta, events);
        }
        if ended.is_some() {
            events.push_str(&named_event(&json!({
                "type": "content_block_stop", "index": self.blocks - 1,
            })));
        }
    }

    fn whole(&self, whole: &Whole) -> Value {
        let mut blocks = Vec::new();
        if !whole.thoughts.is_empty() {
            blocks.push(thinking_block(&whole.thoughts, SIGNATURE));
        }
        match &whole.call {
            Some(call) => blocks.push(call_block(call, &call.arguments)),
            None => blocks.push(text_block(&whole.text)),
        }
        self.message(&blocks, Some(&whole.usage))
    }

    fn message(&self, blocks: &[Value], end: Option<&Usage>) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": blocks,
            "stop_reason": end.map(stop_reason),
            "stop_sequence": null,
            "usage": {
                "input_tokens": self.prompt_tokens,
                "output_tokens": end.map_or(0, |usage| usage.tokens),
            },
        })
    }
}

fn text_block(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn thinking_block(thoughts: &str, signature: &str) -> Value {
    json!({ "type": "thinking", "thinking": thoughts, "signature": signature })
}

fn call_block(call: &ToolCall, input: &Value) -> Value {
    let id = format!("toolu_{}", call.id);
    json!({ "type": "tool_use", "id": id, "name": call.name, "input": input })
}

fn stop_reason(usage: &Usage) -> &'static str {
    match (usage.called, usage.done_reason) {
        (true, _) => "tool_use",
        (false, DoneReason::Stop) => "end_turn",
        (false, DoneReason::Length) => "max_tokens",
    }
}
