//! Ollama's own routes that run a model: generate, chat, embed and the old embeddings.

use std::num::NonZeroU32;
use std::sync::Arc;

use bytes::Bytes;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalogue::timestamp;
use super::generation::{Generation, Step, Usage};
use super::prompt::{Message, chat_text, embedding, keep_alive, limit_from, texts};
use super::reply::{ApiError, Reply, SIMULATED_ERROR, json_line};
use super::residency::KeepAlive;
use super::routes::Call;

const NDJSON: &str = "application/x-ndjson";

#[derive(Debug, Deserialize)]
struct GenerationRequest {
    model: Option<String>,
    name: Option<String>,
    prompt: Option<String>,
    #[serde(default)]
    messages: Vec<Message>,
    stream: Option<bool>,
    keep_alive: Option<Value>,
    options: Option<Options>,
    tools: Option<Vec<Value>>,
    think: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Options {
    num_predict: Option<i64>,
}

/// The two shapes in which text goes out.
#[derive(Debug, Clone, Copy)]
enum Shape {
    Generate,
    Chat,
}

impl Shape {
    fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Chat => "chat",
        }
    }

    fn with_text(self, model: &str, text: &str) -> Value {
        let mut line = json!({ "model": model, "created_at": timestamp(), "done": false });
        match self {
            Self::Generate => line["response"] = json!(text),
            Self::Chat => line["message"] = json!({ "role": "assistant", "content": text }),
        }
        line
    }

    fn last(self, model: &str, text: &str, usage: &Usage) -> Value {
        let mut line = self.with_text(model, text);
        line["done"] = json!(true);
        line["done_reason"] = json!(usage.done_reason.as_str());
        line["total_duration"] = json!(nanos(usage.total));
        line["load_duration"] = json!(nanos(usage.load));
        line["prompt_eval_count"] = json!(usage.prompt_tokens);
        line["prompt_eval_duration"] = json!(nanos(usage.prompt_eval));
        line["eval_count"] = json!(usage.tokens);
        line["eval_duration"] = json!(nanos(usage.eval));
        line
    }
}

pub(super) async fn generate(call: &Call) -> Result<Reply, ApiError> {
    let request: GenerationRequest = call.json()?;
    let prompt = request.prompt.clone().unwrap_or_default();
    run(call, request, Shape::Generate, &prompt).await
}

pub(super) async fn chat(call: &Call) -> Result<Reply, ApiError> {
    let request: GenerationRequest = call.json()?;
    let prompt = chat_text(&request.messages);
    run(call, request, Shape::Chat, &prompt).await
}

async fn run(
    call: &Call,
    request: GenerationRequest,
    shape: Shape,
    prompt: &str,
) -> Result<Reply, ApiError> {
    let model = call.model(request.model.as_deref(), request.name.as_deref())?;
    check_capabilities(model, shape, &request)?;
    let keep_alive = keep_alive(request.keep_alive.as_ref())?;
    let asked_for = request.model.or(request.name).unwrap_or_default();
    if prompt.is_empty() {
        return load_or_unload(call, model, shape, keep_alive).await;
    }
    let limit = request.options.and_then(|options| options.num_predict);
    let limit = limit_from(limit);
    let mut generation = begin(call, model, keep_alive, (prompt, limit)).await?;
    if request.stream.unwrap_or(true) {
        let format = move |step| Some(line(shape, &asked_for, step));
        return Reply::stream(NDJSON, generation, format).await;
    }
    let (text, usage) = generation.collect().await.ok_or_else(ApiError::simulated)?;
    Ok(Reply::json(&shape.last(&asked_for, &text, &usage)))
}

async fn begin(
    call: &Call,
    model: &Model,
    keep_alive: Option<KeepAlive>,
    (prompt, limit): (&str, Option<NonZeroU32>),
) -> Result<Generation, ApiError> {
    let seat = call.engine.seat(model, keep_alive, &call.script).await?;
    let script = Arc::clone(&call.script);
    Ok(Generation::new(seat, script, prompt, limit))
}

fn line(shape: Shape, model: &str, step: Step) -> Bytes {
    match step {
        Step::Token(text) => json_line(&shape.with_text(model, &text)),
        Step::Done(usage) => json_line(&shape.last(model, "", &usage)),
        Step::Broken => json_line(&json!({ "error": SIMULATED_ERROR })),
    }
}

async fn load_or_unload(
    call: &Call,
    model: &Model,
    shape: Shape,
    keep_alive: Option<KeepAlive>,
) -> Result<Reply, ApiError> {
    let done_reason = if keep_alive == Some(KeepAlive::For(std::time::Duration::ZERO)) {
        call.engine.unload(&model.name);
        "unload"
    } else {
        call.engine.seat(model, keep_alive, &call.script).await?;
        "load"
    };
    let mut answer = shape.with_text(&model.name, "");
    answer["done"] = json!(true);
    answer["done_reason"] = json!(done_reason);
    Ok(Reply::json(&answer))
}

fn check_capabilities(
    model: &Model,
    shape: Shape,
    request: &GenerationRequest,
) -> Result<(), ApiError> {
    let has = |name| {
        model
            .capabilities
            .iter()
            .any(|capability| capability == name)
    };
    let wants_tools = request
        .tools
        .as_ref()
        .is_some_and(|tools| !tools.is_empty());
    let wants_thinking = match &request.think {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(_) => true,
    };
    let missing = if !has("completion") {
        shape.name()
    } else if wants_tools && !has("tools") {
        "tools"
    } else if wants_thinking && !has("thinking") {
        "thinking"
    } else {
        return Ok(());
    };
    let name = &model.name;
    Err(ApiError::bad_request(format!(
        "{name:?} does not support {missing}"
    )))
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
        "total_duration": nanos(total),
        "load_duration": nanos(load),
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

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
