//! The OpenAI routes that run a model: chat completions, completions, embeddings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use chrono::Utc;
use serde::Deserialize;
use serde_json::{Value, json};

use super::generation::{Generation, Step, Usage};
use super::prompt::{Message, chat_text, embedding, limit_from, texts};
use super::reply::{ApiError, Reply, event};
use super::routes::Call;

const EVENT_STREAM: &str = "text/event-stream";
const BASE64_DIGITS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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
    created: i64,
    model: String,
    include_usage: bool,
}

pub(super) async fn chat_completions(call: &Call) -> Result<Reply, ApiError> {
    let request: CompletionRequest = call.json()?;
    if request.messages.is_empty() {
        return Err(ApiError::bad_request("[] is too short - 'messages'"));
    }
    let prompt = chat_text(&request.messages);
    complete(call, request, Kind::Chat, &prompt).await
}

pub(super) async fn completions(call: &Call) -> Result<Reply, ApiError> {
    let request: CompletionRequest = call.json()?;
    let prompt = texts(request.prompt.as_ref())
        .unwrap_or_default()
        .join("\n");
    complete(call, request, Kind::Text, &prompt).await
}

async fn complete(
    call: &Call,
    request: CompletionRequest,
    kind: Kind,
    prompt: &str,
) -> Result<Reply, ApiError> {
    let model = call.model(request.model.as_deref(), None)?;
    let seat = call.engine.seat(model, None, &call.script).await?;
    let limit = limit_from(request.max_completion_tokens.or(request.max_tokens));
    let mut generation = Generation::new(seat, Arc::clone(&call.script), prompt, limit);
    let number = call.engine.record.requests.load(Ordering::Relaxed);
    let frame = Frame {
        kind,
        id: match kind {
            Kind::Chat => format!("chatcmpl-{number}"),
            Kind::Text => format!("cmpl-{number}"),
        },
        created: Utc::now().timestamp(),
        model: request.model.unwrap_or_default(),
        include_usage: request.stream_options.is_some_and(|o| o.include_usage),
    };
    if request.stream {
        let format = move |step| frame.events(step);
        return Reply::stream(EVENT_STREAM, generation, format).await;
    }
    let (text, usage) = generation.collect().await.ok_or_else(ApiError::simulated)?;
    Ok(Reply::json(&frame.whole(&text, &usage)))
}

impl Frame {
    /// A stream that breaks just ends, without `[DONE]`.
    fn events(&self, step: Step) -> Option<Bytes> {
        match step {
            Step::Token(text) => Some(event(&self.chunk(&text, None)).into()),
            Step::Broken => None,
            Step::Done(usage) => {
                let mut events = event(&self.chunk("", Some(&usage)));
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

    fn chunk(&self, text: &str, end: Option<&Usage>) -> Value {
        let mut choice = json!({
            "index": 0,
            "finish_reason": end.map(|usage| usage.done_reason.as_str()),
        });
        match self.kind {
            Kind::Chat => choice["delta"] = json!({ "role": "assistant", "content": text }),
            Kind::Text => choice["text"] = json!(text),
        }
        self.object("chunk", vec![choice])
    }

    fn whole(&self, text: &str, usage: &Usage) -> Value {
        let mut choice = json!({ "index": 0, "finish_reason": usage.done_reason.as_str() });
        match self.kind {
            Kind::Chat => choice["message"] = json!({ "role": "assistant", "content": text }),
            Kind::Text => choice["text"] = json!(text),
        }
        let mut whole = self.object("", vec![choice]);
        whole["usage"] = usage_of(usage);
        whole
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
            "created": self.created,
            "model": self.model,
            "system_fingerprint": "fp_simulated",
            "choices": choices,
        })
    }
}

fn usage_of(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.tokens,
        "total_tokens": usage.prompt_tokens + usage.tokens,
    })
}

#[derive(Debug, Deserialize)]
struct EmbeddingsRequest {
    model: Option<String>,
    input: Option<Value>,
    #[serde(default)]
    encoding_format: Encoding,
    dimensions: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    Base64,
}

pub(super) async fn embeddings(call: &Call) -> Result<Reply, ApiError> {
    let request: EmbeddingsRequest = call.json()?;
    let model = call.model(request.model.as_deref(), None)?;
    let inputs = texts(request.input.as_ref())
        .filter(|inputs| !inputs.is_empty())
        .ok_or_else(|| ApiError::bad_request("invalid input"))?;
    let _seat = call.engine.seat(model, None, &call.script).await?;
    let entries = inputs.iter().enumerate().map(|(index, text)| {
        let vector = embedding(&call.script, model, text, request.dimensions);
        let encoded = match request.encoding_format {
            Encoding::Float => json!(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64(&bytes))
            }
        };
        json!({ "object": "embedding", "index": index, "embedding": encoded })
    });
    let entries: Vec<_> = entries.collect();
    let tokens: usize = inputs
        .iter()
        .map(|text| text.split_whitespace().count())
        .sum();
    Ok(Reply::json(&json!({
        "object": "list",
        "data": entries,
        "model": request.model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, i| {
            bits << 8 | usize::from(group.get(i).copied().unwrap_or(0))
        });
        for digit in 0..4 {
            let is_padding = digit > group.len();
            let value = BASE64_DIGITS[bits >> (18 - 6 * digit) & 63];
            text.push(if is_padding { '=' } else { char::from(value) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", "")]
    #[case("f", "Zg==")]
    #[case("fo", "Zm8=")]
    #[case("foo", "Zm9v")]
    #[case("foobar", "Zm9vYmFy")]
    fn bytes_become_base64(#[case] bytes: &str, #[case] expected: &str) {
        assert_eq!(base64(bytes.as_bytes()), expected);
    }
}
