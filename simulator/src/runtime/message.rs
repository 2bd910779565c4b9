//! Reading chats in the form of every protocol: the prompt they amount to, pictures included.

use serde::Deserialize;
use serde_json::Value;

use super::reply::ApiError;
use super::script::chat_prompt;
use super::words::Sequence;

/// One message of a chat. Content is a text or a list of parts; pictures are parts or stand beside.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: Value,
    #[serde(default)]
    images: Option<Vec<Value>>,
    /// The result of a tool that was called by an item of its own.
    output: Option<Value>,
}

impl Message {
    pub(super) fn new(role: &str, content: Value) -> Self {
        Self {
            role: role.to_owned(),
            content,
            ..Self::default()
        }
    }

    fn role(&self) -> &str {
        if self.output.is_some() {
            "tool"
        } else {
            &self.role
        }
    }

    /// Whether it brings what a tool returned.
    fn is_tool_result(&self) -> bool {
        let parts = self.content.as_array().into_iter().flatten();
        self.role() == "tool" || parts.into_iter().any(|part| part["type"] == "tool_result")
    }

    fn text(&self) -> Result<String, ApiError> {
        let mut pieces = Vec::new();
        push_text(&self.content, &mut pieces)?;
        push_text(self.output.as_ref().unwrap_or(&Value::Null), &mut pieces)?;
        for image in self.images.iter().flatten() {
            pieces.push(picture(image)?);
        }
        Ok(pieces.join(" "))
    }
}

/// Returns the prompt that a chat amounts to.
pub(super) fn chat_text(messages: &[Message]) -> Result<String, ApiError> {
    let texts = messages.iter().map(Message::text);
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let roles = messages.iter().map(Message::role);
    Ok(chat_prompt(roles.zip(texts.iter().map(String::as_str))))
}

/// Returns whether the client waits for words and not for the call of a tool.
pub(super) fn answers_a_call(messages: &[Message]) -> bool {
    messages.last().is_some_and(Message::is_tool_result)
}

/// Stands for a picture in a prompt: the same bytes are the same words, however they were sent.
///
/// # Errors
/// It is not base64, plain or as a `data:` URL.
pub(super) fn picture(image: &Value) -> Result<String, ApiError> {
    let text = image.as_str().unwrap_or_default();
    let data = match text.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,").map_or("", |(_kind, data)| data),
        None => text,
    };
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    if data.is_empty() || !data.len().is_multiple_of(4) || !data.bytes().all(is_base64) {
        return Err(ApiError::bad_request("invalid image input"));
    }
    let number = Sequence::new(0, "image", data).next_number();
    Ok(format!("[image {number:016x}]"))
}

fn push_text(content: &Value, pieces: &mut Vec<String>) -> Result<(), ApiError> {
    match content {
        Value::String(text) => pieces.push(text.clone()),
        Value::Array(parts) => {
            for part in parts {
                push_part(part, pieces)?;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {}
    }
    Ok(())
}

fn push_part(part: &Value, pieces: &mut Vec<String>) -> Result<(), ApiError> {
    match part["type"].as_str() {
        Some("image_url") => pieces.push(picture(&part["image_url"]["url"])?),
        Some("input_image") => pieces.push(picture(&part["image_url"])?),
        Some("image") => pieces.push(picture(&part["source"]["data"])?),
        Some("tool_result") => push_text(&part["content"], pieces)?,
        Some(_) | None => pieces.extend(part["text"].as_str().map(str::to_owned)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    const DOT: &str = "aGVsbG8h";

    fn messages(messages: Value) -> Vec<Message> {
        serde_json::from_value(messages).unwrap()
    }

    #[test]
    fn content_in_parts_is_the_same_prompt_as_plain_text() {
        let plain = messages(json!([{ "role": "user", "content": "hi there" }]));
        let parts = messages(json!([{ "role": "user", "content": [
            { "type": "text", "text": "hi" }, { "type": "text", "text": "there" },
        ] }]));

        assert_eq!(chat_text(&plain).unwrap(), "user: hi there");
        assert_eq!(chat_text(&parts).unwrap(), chat_text(&plain).unwrap());
    }

    #[rstest]
    #[case(json!({ "content": [{ "type": "text", "text": "look" },
        { "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{DOT}") } }] }))]
    #[case(json!({ "content": [{ "type": "input_text", "text": "look" },
        { "type": "input_image", "image_url": format!("data:image/jpeg;base64,{DOT}") }] }))]
    #[case(json!({ "content": [{ "type": "text", "text": "look" }, { "type": "image",
        "source": { "type": "base64", "media_type": "image/png", "data": DOT } }] }))]
    fn same_picture_is_the_same_prompt_in_every_protocol(#[case] mut message: Value) {
        message["role"] = json!("user");
        let native = json!([{ "role": "user", "content": "look", "images": [DOT] }]);
        let expected = chat_text(&messages(native)).unwrap();

        assert!(expected.starts_with("user: look [image "));
        assert_eq!(chat_text(&messages(json!([message]))).unwrap(), expected);
    }

    #[rstest]
    #[case(json!("a picture"))]
    #[case(json!("https://example.invalid/a.png"))]
    #[case(json!("data:image/png;base64,"))]
    #[case(json!(7))]
    fn picture_that_is_not_base64_is_refused(#[case] image: Value) {
        assert!(picture(&image).is_err());
    }

    #[rstest]
    #[case(json!({ "role": "tool", "content": "22 degrees" }), true)]
    #[case(json!({ "type": "function_call_output", "call_id": "1", "output": "22" }), true)]
    #[case(json!({ "role": "user", "content": [{ "type": "tool_result", "content": "22" }] }), true)]
    #[case(json!({ "role": "user", "content": "hi" }), false)]
    fn result_of_a_tool_is_told_from_a_question(#[case] message: Value, #[case] expected: bool) {
        assert_eq!(answers_a_call(&messages(json!([message]))), expected);
    }
}
