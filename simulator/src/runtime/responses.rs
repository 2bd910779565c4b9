//! OpenAI's responses: the newer form of a chat, whole or as named events.

mod writer;

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use ruzstd::decoding::StreamingDecoder;
use serde::Deserialize;
use serde_json::Value;

use self::writer::Writer;
use super::ask::{Ask, require};
use super::message::Message;
use super::prompt::limit_from;
use super::reply::{ApiError, EVENT_STREAM, Reply};
use super::routes::Call;
use super::words::Sequence;

const LARGEST_UNPACKED: u64 = 20 << 20;

#[derive(Debug, Deserialize)]
struct ResponsesRequest {
    model: Option<String>,
    instructions: Option<String>,
    input: Option<Input>,
    #[serde(default)]
    stream: bool,
    max_output_tokens: Option<i64>,
    #[serde(default)]
    tools: Vec<Value>,
    tool_choice: Option<Value>,
    reasoning: Option<Reasoning>,
}

#[derive(Debug, Deserialize)]
struct Reasoning {
    effort: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Input {
    Text(String),
    Items(Vec<Message>),
}

pub(super) async fn responses(call: &Call) -> Result<Reply, ApiError> {
    let request: ResponsesRequest = match call.content_encoding() {
        None | Some("identity") => call.json()?,
        Some("zstd") => call.with_body(unpacked(&call.body)?).json()?,
        Some(_) => {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(ApiError::new(status, "unsupported content encoding"));
        }
    };
    let model = call.model(request.model.as_deref(), None)?;
    require(model, "completion", "chat")?;
    let instructions = request.instructions.map(Value::from);
    let mut messages: Vec<_> = instructions
        .map(|text| Message::new("system", text))
        .into_iter()
        .collect();
    match request.input {
        Some(Input::Text(text)) => messages.push(Message::new("user", text.into())),
        Some(Input::Items(items)) => messages.extend(items),
        None => return Err(ApiError::bad_request("input is required")),
    }
    let effort = request.reasoning.and_then(|reasoning| reasoning.effort);
    let ask = Ask {
        limit: limit_from(request.max_output_tokens),
        thinks: effort.map(|effort| effort != "none"),
        tool_choice: request.tool_choice.as_ref(),
        ..Ask::chat(&messages, &request.tools)?
    };
    let number = Sequence::new(call.script.seed, &model.name, &ask.prompt).next_number();
    let mut generation = call.begin(model, ask).await?;
    let model = request.model.unwrap_or_default();
    let mut writer = Writer::new(number, model, Arc::clone(&call.script));
    if request.stream {
        let format = move |step| writer.events(step);
        return Reply::stream(EVENT_STREAM, generation, format).await;
    }
    let whole = generation.collect().await;
    let whole = whole.ok_or_else(ApiError::simulated)?;
    Ok(Reply::json(&writer.whole(whole)))
}

fn unpacked(packed: &[u8]) -> Result<Bytes, ApiError> {
    let broken = || ApiError::bad_request("invalid zstd body");
    let decoder = StreamingDecoder::new(packed).map_err(|_unreadable| broken())?;
    let mut body = Vec::new();
    let mut limited = decoder.take(LARGEST_UNPACKED + 1);
    limited
        .read_to_end(&mut body)
        .map_err(|_unreadable| broken())?;
    if body.len() as u64 > LARGEST_UNPACKED {
        let status = StatusCode::PAYLOAD_TOO_LARGE;
        return Err(ApiError::new(status, "request body too large"));
    }
    Ok(body.into())
}
