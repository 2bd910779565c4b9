//! Embeddings in the OpenAI protocol.

use serde::Deserialize;
use serde_json::{Value, json};

use super::prompt::{embedding, texts};
use super::reply::{ApiError, Reply};
use super::routes::Call;

const BASE64_DIGITS: &[u8; 64] =
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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
