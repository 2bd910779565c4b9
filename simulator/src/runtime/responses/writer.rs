//! How a response is written: its items, and the events that bring them piece by piece.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::runtime::generation::{Step, Usage, Whole};
use crate::runtime::reply::named_event;
use crate::runtime::script::{DoneReason, RuntimeScript};
use crate::runtime::tools::ToolCall;

/// Writes one answer, item by item.
pub(super) struct Writer {
    number: u64,
    model: String,
    script: Arc<RuntimeScript>,
    /// Items that are complete.
    items: Vec<Value>,
    /// The text of the item that is being written.
    open: Option<(ItemKind, String)>,
    events: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemKind {
    Reasoning,
    Message,
}

impl Writer {
    pub(super) fn new(number: u64, model: String, script: Arc<RuntimeScript>) -> Self {
        Self {
            number,
            model,
            script,
            items: Vec::new(),
            open: None,
            events: 0,
        }
    }

    /// A stream that breaks just ends, without `response.completed`.
    pub(super) fn events(&mut self, step: Step) -> Option<Bytes> {
        let mut events = Vec::new();
        if self.events == 0 {
            for kind in ["response.created", "response.in_progress"] {
                events.push(json!({ "type": kind, "response": self.response(None) }));
            }
        }
        match step {
            Step::Thought(thought) => self.text(ItemKind::Reasoning, &thought, &mut events),
            Step::Token(text) => self.text(ItemKind::Message, &text, &mut events),
            Step::Call(call) => self.call(&call, &mut events),
            Step::Done(usage) => {
                self.end_item(&mut events);
                let kind = match usage.done_reason {
                    DoneReason::Stop => "response.completed",
                    DoneReason::Length => "response.incomplete",
                };
                events.push(json!({ "type": kind, "response": self.response(Some(&usage)) }));
            }
            Step::Broken => return None,
        }
        let numbered = events.into_iter().map(|mut event| {
            event["sequence_number"] = json!(self.events);
            self.events += 1;
            named_event(&event)
        });
        Some(numbered.collect::<String>().into())
    }

    pub(super) fn whole(mut self, whole: Whole) -> Value {
        if !whole.thoughts.is_empty() {
            let item = self.item(ItemKind::Reasoning, &whole.thoughts, "completed");
            self.items.push(item);
        }
        let said = match &whole.call {
            Some(call) => call_item(call, &call.arguments.to_string(), "completed"),
            None => self.item(ItemKind::Message, &whole.text, "completed"),
        };
        self.items.push(said);
        self.response(Some(&whole.usage))
    }

    fn text(&mut self, kind: ItemKind, text: &str, events: &mut Vec<Value>) {
        if self.open.as_ref().is_none_or(|(open, _)| *open != kind) {
            self.end_item(events);
            let mut item = self.item(kind, "", "in_progress");
            item[kind.parts()] = json!([]);
            events.push(self.item_event("response.output_item.added", &item));
            let added = json!({ "type": kind.event("added"), "part": kind.part("") });
            events.push(self.placed(added, kind));
            self.open = Some((kind, String::new()));
        }
        let delta = json!({ "type": kind.text_event("delta"), "delta": text });
        events.push(self.placed(delta, kind));
        if let Some((_kind, so_far)) = &mut self.open {
            so_far.push_str(text);
        }
    }

    fn end_item(&mut self, events: &mut Vec<Value>) {
        let Some((kind, text)) = self.open.take() else {
            return;
        };
        let done = json!({ "type": kind.text_event("done"), "text": text });
        events.push(self.placed(done, kind));
        let done = json!({ "type": kind.event("done"), "part": kind.part(&text) });
        events.push(self.placed(done, kind));
        let item = self.item(kind, &text, "completed");
        events.push(self.item_event("response.output_item.done", &item));
        self.items.push(item);
    }

    fn call(&mut self, call: &ToolCall, events: &mut Vec<Value>) {
        self.end_item(events);
        let arguments = call.arguments.to_string();
        let begun = call_item(call, "", "in_progress");
        events.push(self.item_event("response.output_item.added", &begun));
        for (part, field) in [("delta", "delta"), ("done", "arguments")] {
            let kind = format!("response.function_call_arguments.{part}");
            events.push(json!({
                "type": kind, "item_id": begun["id"], "output_index": self.items.len(),
                field: arguments,
            }));
        }
        let item = call_item(call, &arguments, "completed");
        events.push(self.item_event("response.output_item.done", &item));
        self.items.push(item);
    }

    fn item_event(&self, kind: &str, item: &Value) -> Value {
        json!({ "type": kind, "output_index": self.items.len(), "item": item })
    }

    /// Says which part of which item an event is about.
    fn placed(&self, mut event: Value, kind: ItemKind) -> Value {
        event["item_id"] = json!(self.item_id(kind));
        event["output_index"] = json!(self.items.len());
        event[kind.index()] = json!(0);
        if kind == ItemKind::Message && event["part"].is_null() {
            event["logprobs"] = json!([]);
        }
        event
    }

    fn item(&self, kind: ItemKind, text: &str, status: &str) -> Value {
        let id = self.item_id(kind);
        match kind {
            ItemKind::Reasoning => {
                json!({ "id": id, "type": "reasoning", "summary": [kind.part(text)] })
            }
            ItemKind::Message => json!({
                "id": id, "type": "message", "status": status, "role": "assistant",
                "content": [kind.part(text)],
            }),
        }
    }

    fn item_id(&self, kind: ItemKind) -> String {
        match kind {
            ItemKind::Reasoning => format!("rs_{:016x}", self.number),
            ItemKind::Message => format!("msg_{:016x}", self.number),
        }
    }

    fn response(&self, end: Option<&Usage>) -> Value {
        let is_cut = end.is_some_and(|usage| usage.done_reason == DoneReason::Length);
        let status = match end {
            None => "in_progress",
            Some(_) if is_cut => "incomplete",
            Some(_) => "completed",
        };
        json!({
            "id": format!("resp_{:016x}", self.number),
            "object": "response",
            "created_at": self.script.unix_time(),
            "status": status,
            "incomplete_details": is_cut.then(|| json!({ "reason": "max_output_tokens" })),
            "model": self.model,
            "output": self.items,
            "error": null,
            "instructions": null,
            "metadata": {},
            "parallel_tool_calls": true,
            "tool_choice": "auto",
            "tools": [],
            "usage": end.map(usage_of),
        })
    }
}

impl ItemKind {
    /// The field that holds the parts of such an item.
    fn parts(self) -> &'static str {
        match self {
            Self::Reasoning => "summary",
            Self::Message => "content",
        }
    }

    fn index(self) -> &'static str {
        match self {
            Self::Reasoning => "summary_index",
            Self::Message => "content_index",
        }
    }

    fn part(self, text: &str) -> Value {
        match self {
            Self::Reasoning => json!({ "type": "summary_text", "text": text }),
            Self::Message => {
                json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
            }
        }
    }

    fn event(self, what: &str) -> String {
        match self {
            Self::Reasoning => format!("response.reasoning_summary_part.{what}"),
            Self::Message => format!("response.content_part.{what}"),
        }
    }

    fn text_event(self, what: &str) -> String {
        match self {
            Self::Reasoning => format!("response.reasoning_summary_text.{what}"),
            Self::Message => format!("response.output_text.{what}"),
        }
    }
}

fn call_item(call: &ToolCall, arguments: &str, status: &str) -> Value {
    json!({
        "id": format!("fc_{}", call.id), "type": "function_call", "status": status,
        "call_id": format!("call_{}", call.id), "name": call.name, "arguments": arguments,
    })
}

fn usage_of(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": 0 },
        "output_tokens": usage.tokens,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": usage.prompt_tokens + usage.tokens,
    })
}
