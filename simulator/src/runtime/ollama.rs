//! Ollama's own routes that run a model: generate, chat, embed and the old embeddings.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, require};
use super::generation::{Step, Usage, Whole};
use super::message::{Message, picture};
use super::prompt::{embedding, keep_alive, limit_from, texts};
use super::reply::{ApiError, NDJSON, Reply, SIMULATED_ERROR, json_line};
use super::residency::KeepAlive;
use super::routes::Call;
use super::script::RuntimeScript;
use super::tools::ToolCall;

#[derive(Debug, Deserialize)]
struct GenerationRequest {
    model: Option<String>,
    name: Option<String>,
    #[serde(default)]
    prompt: String,
    images: Option<Vec<Value>>,
    #[serde(default)]
    messages: Vec<Message>,
    stream: Option<bool>,
    keep_alive: Option<Value>,
    options: Option<Options>,
    #[serde(default)]
    tools: Option<Vec<Value>>,
    think: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Options {
    num_predict: Option<i64>,
}

/// The two shapes in which text goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Generate,
    Chat,
}

/// Writes the messages of one answer.
struct Writer {
    shape: Shape,
    model: String,
    script: Arc<RuntimeScript>,
}

impl Writer {
    fn said(&self, text: &str, thoughts: &str, call: Option<&ToolCall>) -> Value {
        let created_at = self.script.timestamp();
        let mut line = json!({ "model": self.model, "created_at": created_at, "done": false });
        let said = match self.shape {
            Shape::Generate => {
                line["response"] = json!(text);
                &mut line
            }
            Shape::Chat => {
                line["message"] = json!({ "role": "assistant", "content": text });
                &mut line["message"]
            }
        };
        if !thoughts.is_empty() {
            said["thinking"] = json!(thoughts);
        }
        if let Some(call) = call {
            said["tool_calls"] = json!([{ "id": format!("call_{}", call.id), "function": {
                "index": 0, "name": call.name, "arguments": call.arguments,
            } }]);
        }
        line
    }

    fn ended(&self, mut line: Value, usage: &Usage) -> Value {
        let nanos = |duration| json!(self.script.nanos(duration));
        line["done"] = json!(true);
        line["done_reason"] = json!(usage.done_reason.as_str());
        line["total_duration"] = nanos(usage.total);
        line["load_duration"] = nanos(usage.load);
        line["prompt_eval_count"] = json!(usage.prompt_tokens);
        line["prompt_eval_duration"] = nanos(usage.prompt_eval);
        line["eval_count"] = json!(usage.tokens);
        line["eval_duration"] = nanos(usage.eval);
        line
    }

    fn line(&self, step: Step) -> Bytes {
        json_line(&match step {
            Step::Thought(thought) => self.said("", &thought, None),
            Step::Token(text) => self.said(&text, "", None),
            Step::Call(call) => self.said("", "", Some(&call)),
            Step::Done(usage) => self.ended(self.said("", "", None), &usage),
            Step::Broken => json!({ "error": SIMULATED_ERROR }),
        })
    }

    fn whole(&self, whole: &Whole) -> Value {
        let said = self.said(&whole.text, &whole.thoughts, whole.call.as_ref());
        self.ended(said, &whole.usage)
    }
}

pub(super) async fn generate(call: &Call) -> Result<Reply, ApiError> {
    let request: GenerationRequest = call.json()?;
    let mut pieces = vec![request.prompt.clone()];
    for image in request.images.iter().flatten() {
        pieces.push(picture(image)?);
    }
    let ask = Ask {
        prompt: pieces.join(" "),
        ..Ask::default()
    };
    run(call, &request, Shape::Generate, ask).await
}

pub(super) async fn chat(call: &Call) -> Result<Reply, ApiError> {
    let request: GenerationRequest = call.json()?;
    let tools = request.tools.as_deref().unwrap_or_default();
    let ask = Ask::chat(&request.messages, tools)?;
    run(call, &request, Shape::Chat, ask).await
}

async fn run(
    call: &Call,
    request: &GenerationRequest,
    shape: Shape,
    ask: Ask<'_>,
) -> Result<Reply, ApiError> {
    let model = call.model(request.model.as_deref(), request.name.as_deref())?;
    let what = match shape {
        Shape::Generate => "generate",
        Shape::Chat => "chat",
    };
    require(model, "completion", what)?;
    let keep_alive = keep_alive(request.keep_alive.as_ref())?;
    let asked_for = request.model.as_ref().or(request.name.as_ref());
    let writer = Writer {
        shape,
        model: asked_for.cloned().unwrap_or_default(),
        script: Arc::clone(&call.script),
    };
    if ask.prompt.is_empty() {
        return load_or_unload(call, model, &writer, keep_alive).await;
    }
    let limit = request.options.as_ref();
    let ask = Ask {
        limit: limit_from(limit.and_then(|options| options.num_predict)),
        keep_alive,
        thinks: wants_thoughts(request.think.as_ref()),
        ..ask
    };
    let mut generation = call.begin(model, ask).await?;
    if request.stream.unwrap_or(true) {
        let format = move |step| Some(writer.line(step));
        return Reply::stream(NDJSON, generation, format).await;
    }
    let whole = generation.collect().await;
    let whole = whole.ok_or_else(ApiError::simulated)?;
    Ok(Reply::json(&writer.whole(&whole)))
}

fn wants_thoughts(think: Option<&Value>) -> Option<bool> {
    match think? {
        Value::Null => None,
        Value::Bool(thinks) => Some(*thinks),
        Value::String(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => Some(true),
    }
}

async fn load_or_unload(
    call: &Call,
    model: &Model,
    writer: &Writer,
    keep_alive: Option<KeepAlive>,
) -> Result<Reply, ApiError> {
    let done_reason = if keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        call.engine.unload(&model.name);
        "unload"
    } else {
        call.engine.seat(model, keep_alive, &call.script).await?;
        "load"
    };
    let mut answer = writer.said("", "", None);
    answer["model"] = json!(model.name);
    answer["done"] = json!(true);
    answer["done_reason"] = json!(done_reason);
    Ok(Reply::json(&answer))
}

#[derive(Debug, Deserialize)]
struct EmbedRequest {
    model: Option<String>,
    name: Option<String>,
    input: Option<Value>,
    prompt: Option<String>,
    keep_alive: Option<Value>,
    dimensions: Option<u16>,
}

pub(super) async fn embed(call: &Call) -> Result<Reply, ApiError> {
    let request: EmbedRequest = call.json()?;
    let model = call.model(request.model.as_deref(), request.name.as_deref())?;
    let keep_alive = keep_alive(request.keep_alive.as_ref())?;
    let inputs =
        texts(request.input.as_ref()).ok_or_else(|| ApiError::bad_request("invalid input type"))?;
    let seat = call.engine.seat(model, keep_alive, &call.script).await?;
    let vectors = inputs
        .iter()
        .map(|text| embedding(&call.script, model, text, request.dimensions));
    let (total, load) = seat.durations();
    Ok(Reply::json(&json!({
        "model": request.model.or(request.name),
        "embeddings": vectors.collect::<Vec<_>>(),
        "total_duration": call.script.nanos(total),
        "load_duration": call.script.nanos(load),
        "prompt_eval_count": inputs.iter().map(|text| text.split_whitespace().count()).sum::<usize>(),
    })))
}

pub(super) async fn embeddings(call: &Call) -> Result<Reply, ApiError> {
    let request: EmbedRequest = call.json()?;
    let model = call.model(request.model.as_deref(), request.name.as_deref())?;
    let keep_alive = keep_alive(request.keep_alive.as_ref())?;
    let _seat = call.engine.seat(model, keep_alive, &call.script).await?;
    let prompt = request.prompt.unwrap_or_default();
    let vector = embedding(&call.script, model, &prompt, None);
    Ok(Reply::json(&json!({ "embedding": vector })))
}
