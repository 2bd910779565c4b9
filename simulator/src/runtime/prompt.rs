//! Reading what all protocols send: bodies, model names, limits, texts to embed.

use std::num::NonZeroU32;
use std::time::Duration;

use ollama_coordinator_common::duration;
use ollama_coordinator_common::protocol::runtime::Model;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::reply::ApiError;
use super::residency::KeepAlive;
use super::routes::Call;
use super::script::RuntimeScript;
use super::words::Sequence;

const EMBEDDING_DIMENSIONS: u16 = 32;

impl Call {
    /// Reads the body as JSON, whatever its content type.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        if self.body.is_empty() {
            return Err(ApiError::bad_request("missing request body"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|invalid| ApiError::bad_request(invalid.to_string()))
    }

    /// Finds the model that `model` or `name` asks for.
    pub(super) fn model(
        &self,
        model: Option<&str>,
        name: Option<&str>,
    ) -> Result<&Model, ApiError> {
        let asked_for = model
            .or(name)
            .filter(|name| !name.is_empty())
            .ok_or_else(|| ApiError::bad_request("model is required"))?;
        self.script
            .model(asked_for)
            .ok_or_else(|| ApiError::unknown_model(asked_for))
    }
}

/// Reads how many tokens an answer may have; zero and below mean no limit.
pub(super) fn limit_from(limit: Option<i64>) -> Option<NonZeroU32> {
    let limit = limit.filter(|limit| *limit > 0)?;
    NonZeroU32::new(u32::try_from(limit).unwrap_or(u32::MAX))
}

/// Reads one text or a list of texts.
pub(super) fn texts(input: Option<&Value>) -> Option<Vec<String>> {
    match input? {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// Reads a duration as text such as `5m`, or a number of seconds; below zero means for ever.
pub(super) fn keep_alive(value: Option<&Value>) -> Result<Option<KeepAlive>, ApiError> {
    let invalid = || ApiError::bad_request("invalid keep_alive");
    let text = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => return Err(invalid()),
    };
    if text.starts_with('-') {
        return Ok(Some(KeepAlive::Forever));
    }
    let duration: Duration = duration::parse(&text).map_err(|_unreadable| invalid())?;
    Ok(Some(KeepAlive::For(duration)))
}

/// Makes the vector, of length one, that belongs to a text.
pub(super) fn embedding(
    script: &RuntimeScript,
    model: &Model,
    text: &str,
    dimensions: Option<u16>,
) -> Vec<f32> {
    let mut numbers = Sequence::new(script.seed, &model.name, text);
    let dimensions = dimensions
        .filter(|dimensions| *dimensions > 0)
        .unwrap_or(EMBEDDING_DIMENSIONS);
    let vector: Vec<f32> = (0..dimensions).map(|_| numbers.next_component()).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector
        .iter()
        .map(|x| x / length.max(f32::EPSILON))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case(json!(null), None)]
    #[case(json!(0), Some(KeepAlive::For(Duration::ZERO)))]
    #[case(json!("5m"), Some(KeepAlive::For(Duration::from_mins(5))))]
    #[case(json!("1h30m"), Some(KeepAlive::For(Duration::from_mins(90))))]
    #[case(json!(-1), Some(KeepAlive::Forever))]
    #[case(json!("-1s"), Some(KeepAlive::Forever))]
    fn keep_alive_is_read_in_all_its_forms(
        #[case] value: Value,
        #[case] expected: Option<KeepAlive>,
    ) {
        assert_eq!(keep_alive(Some(&value)).unwrap(), expected);
    }

    #[rstest]
    #[case(json!("soon"))]
    #[case(json!(true))]
    fn unreadable_keep_alive_is_refused(#[case] value: Value) {
        assert!(keep_alive(Some(&value)).is_err());
    }
}
