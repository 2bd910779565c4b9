//! Transcriptions: the words that follow from the bytes of a recording.

use std::convert::Infallible;
use std::num::NonZeroU32;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use multer::Multipart;
use serde_json::json;

use super::ask::Ask;
use super::reply::{ApiError, Reply};
use super::routes::Call;
use super::words::Sequence;

const SPOKEN_WORDS: u32 = 12;

/// What the form asks for.
#[derive(Debug, Default)]
struct Form {
    model: Option<String>,
    format: Option<String>,
    file: Option<Bytes>,
}

pub(super) async fn transcriptions(call: &Call) -> Result<Reply, ApiError> {
    let form = read(call).await?;
    let model = call.model(form.model.as_deref(), None)?;
    let file = form
        .file
        .ok_or_else(|| ApiError::bad_request("file is required"))?;
    let sound = Sequence::new(0, "audio", &String::from_utf8_lossy(&file)).next_number();
    let ask = Ask {
        prompt: format!("transcribe {sound:016x}"),
        limit: NonZeroU32::new(SPOKEN_WORDS),
        thinks: Some(false),
        ..Ask::default()
    };
    let whole = call.begin(model, ask).await?.collect().await;
    let whole = whole.ok_or_else(ApiError::simulated)?;
    if form.format.as_deref() == Some("text") {
        return Ok(Reply::text(StatusCode::OK, whole.text));
    }
    Ok(Reply::json(&json!({ "text": whole.text })))
}

async fn read(call: &Call) -> Result<Form, ApiError> {
    let unreadable = |error: multer::Error| ApiError::bad_request(error.to_string());
    let kind = call.content_type().unwrap_or_default();
    let boundary = multer::parse_boundary(kind).map_err(unreadable)?;
    let body = call.body.clone();
    let body = stream::once(async { Ok::<_, Infallible>(body) });
    let mut parts = Multipart::new(body, boundary);
    let mut form = Form::default();
    while let Some(part) = parts.next_field().await.map_err(unreadable)? {
        match part.name() {
            Some("model") => form.model = Some(part.text().await.map_err(unreadable)?),
            Some("response_format") => form.format = Some(part.text().await.map_err(unreadable)?),
            Some("file") => form.file = Some(part.bytes().await.map_err(unreadable)?),
            Some(_) | None => {}
        }
    }
    Ok(form)
}
