//! What a request asks for: a peek at the model, the bytes kept as they came.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;

use super::error::ProxyError;

/// The most bytes a request may have: images travel in it as base64.
pub const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// How long a request body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(30);

/// A request that can be sent, and sent again.
#[derive(Debug)]
pub struct Target {
    /// The model it asks for.
    pub model: String,
    /// Whether it says that it wants a stream.
    pub stream: Option<bool>,
    /// Its head.
    pub head: Parts,
    /// Its body, untouched.
    pub body: Bytes,
}

#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(borrow)]
    model: Option<Cow<'a, str>>,
    #[serde(default)]
    stream: Option<serde_json::Value>,
}

impl Target {
    /// Reads the request and finds out which model it asks for.
    pub async fn read(request: Request) -> Result<Self, ProxyError> {
        let (head, body) = request.into_parts();
        let body = collect(body).await?;
        let (model, stream) = peek(&body)?;
        Ok(Self {
            model,
            stream,
            head,
            body,
        })
    }
}

async fn collect(body: Body) -> Result<Bytes, ProxyError> {
    let mut body = Limited::new(body, MAX_BODY_BYTES);
    let mut whole = BytesMut::new();
    loop {
        let next = tokio::time::timeout(BODY_PAUSE, body.frame()).await;
        match next.map_err(|_elapsed| ProxyError::BodyPaused(BODY_PAUSE))? {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    whole.extend_from_slice(data);
                }
            }
            Some(Err(error)) if error.is::<LengthLimitError>() => return Err(ProxyError::TooLarge),
            Some(Err(_broken)) => {
                return Err(ProxyError::BadBody("the body did not arrive whole"));
            }
            None => return Ok(whole.freeze()),
        }
    }
}

fn peek(body: &[u8]) -> Result<(String, Option<bool>), ProxyError> {
    if body.is_empty() {
        return Err(ProxyError::BadBody("missing request body"));
    }
    let peek: Peek<'_> = serde_json::from_slice(body).map_err(ProxyError::NotJson)?;
    let model = peek.model.filter(|model| !model.is_empty());
    let model = model.ok_or(ProxyError::BadBody("model is required"))?;
    let stream = peek.stream.and_then(|stream| stream.as_bool());
    Ok((model.into_owned(), stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(
        r#"{"model":"a:1b","stream":true,"unknown":[1,{"model":"b"}]}"#,
        "a:1b"
    )]
    #[case(r#"{"model":"a","name":"x"}"#, "a")]
    #[case(r#"{"model":"\u00e9"}"#, "é")]
    fn model_is_found_among_unknown_fields(#[case] body: &str, #[case] expected: &str) {
        assert_eq!(peek(body.as_bytes()).unwrap().0, expected);
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case(r#"{"model":""}"#)]
    #[case(r#"{"model":7}"#)]
    #[case(r#"{"name":"a"}"#)]
    #[case("not json")]
    #[case("[]")]
    fn requests_without_a_model_are_refused(#[case] body: &str) {
        assert!(peek(body.as_bytes()).is_err());
    }
}
