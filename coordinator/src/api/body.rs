//! Reads a JSON body: bounded in size and time, with errors that name the field.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// The most bytes a management request may have.
const MAX_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const MAX_DURATION: Duration = Duration::from_secs(10);

/// A JSON body. A missing content type is taken for JSON.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        require_json(&head.headers)?;
        parse(&read(body).await?).map(Self)
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalJsonBody<T>(pub T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (head, body) = request.into_parts();
        let bytes = read(body).await?;
        if bytes.is_empty() {
            return Ok(Self(T::default()));
        }
        require_json(&head.headers)?;
        parse(&bytes).map(Self)
    }
}

/// Refuses what is said to be something else than JSON.
///
/// `curl -d` says that everything is a form; there are no forms here, so it is taken for JSON.
fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    let is_curls_default = essence.eq_ignore_ascii_case("application/x-www-form-urlencoded");
    let is_json = is_curls_default
        || essence.eq_ignore_ascii_case("application/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        Ok(())
    } else {
        Err(ApiError::UnsupportedMediaType)
    }
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    let whole = tokio::time::timeout(MAX_DURATION, Limited::new(body, MAX_BYTES).collect());
    match whole.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::PayloadTooLarge(MAX_BYTES))
        }
        Ok(Err(_broken)) => Err(ApiError::field("body", "did not arrive whole")),
        Err(_elapsed) => Err(ApiError::BodyTimeout),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner().to_string();
        // A path ends in `?` where the text broke off before a field was named.
        let field = match path.trim_end_matches('?').trim_end_matches('.') {
            "" => named_field(&cause).unwrap_or("body"),
            path => path,
        };
        ApiError::field(field.to_owned(), cause)
    })?;
    json.end()
        .map_err(|error| ApiError::field("body", error.to_string()))?;
    Ok(parsed)
}

/// Returns the field that serde names in backquotes when it has no path, as for a missing one.
fn named_field(cause: &str) -> Option<&str> {
    let starts = ["missing field `", "duplicate field `", "unknown field `"];
    let rest = starts.iter().find_map(|start| cause.strip_prefix(start))?;
    rest.split('`').next()
}
