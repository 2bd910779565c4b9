//! Tools that a client offers, and the call that a scripted runtime answers with: the first tool,
//! with arguments that follow from its schema and the prompt.

use serde_json::{Map, Value, json};

use super::words::Sequence;

const DEEPEST_SCHEMA: u8 = 8;

/// A function that the client can run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tool {
    name: String,
    schema: Value,
}

/// A call of one tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToolCall {
    /// What tells calls apart, without the prefix of a protocol.
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: Value,
}

impl Tool {
    /// Reads a tool in the form of any of the protocols.
    fn read(tool: &Value) -> Option<Self> {
        let function = tool.get("function").unwrap_or(tool);
        let schema = function
            .get("parameters")
            .or_else(|| function.get("input_schema"));
        Some(Self {
            name: function.get("name")?.as_str()?.to_owned(),
            schema: schema.cloned().unwrap_or_default(),
        })
    }

    /// Makes the call that belongs to `prompt`.
    fn call(&self, mut words: Sequence) -> ToolCall {
        ToolCall {
            id: format!("{:016x}", words.next_number()),
            name: self.name.clone(),
            arguments: match value_of(&self.schema, &mut words, DEEPEST_SCHEMA) {
                Value::Object(arguments) => Value::Object(arguments),
                Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Array(_) => json!({}),
            },
        }
    }
}

/// Decides which tool is called, if any: none when the client forbids it or asks for none.
pub(super) fn choose(tools: &[Value], choice: Option<&Value>, words: Sequence) -> Option<ToolCall> {
    let kind = choice.and_then(|choice| choice.get("type").unwrap_or(choice).as_str());
    if kind == Some("none") {
        return None;
    }
    let wanted = choice.and_then(|choice| {
        let named = choice.get("function").unwrap_or(choice);
        named.get("name")?.as_str()
    });
    let mut tools = tools.iter().filter_map(Tool::read);
    let tool = tools.find(|tool| wanted.is_none_or(|wanted| tool.name == wanted))?;
    Some(tool.call(words))
}

/// Makes a value that the JSON schema allows.
fn value_of(schema: &Value, words: &mut Sequence, depth: u8) -> Value {
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        return allowed.first().cloned().unwrap_or_default();
    }
    let kind = schema.get("type").map(|kind| kind.get(0).unwrap_or(kind));
    match kind.and_then(Value::as_str) {
        Some("string") => json!(words.next_word()),
        Some("integer" | "number") => json!(words.next_number() % 100),
        Some("boolean") => json!(words.next_number().is_multiple_of(2)),
        Some("array") => {
            let item = schema.get("items").filter(|_| depth > 0);
            let items = item.map(|item| value_of(item, words, depth - 1));
            Value::Array(items.into_iter().collect())
        }
        Some("object") if depth > 0 => {
            let properties = schema.get("properties").and_then(Value::as_object);
            let values = properties.into_iter().flatten().map(|(name, schema)| {
                let value = value_of(schema, words, depth - 1);
                (name.clone(), value)
            });
            Value::Object(values.collect::<Map<_, _>>())
        }
        Some(_) | None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn words() -> Sequence {
        Sequence::new(0, "m", "what is the weather?")
    }

    fn schema() -> Value {
        json!({ "type": "object", "properties": {
            "city": { "type": "string" },
            "unit": { "type": "string", "enum": ["celsius", "fahrenheit"] },
            "days": { "type": "integer" },
            "tags": { "type": "array", "items": { "type": ["string", "null"] } },
        } })
    }

    #[rstest]
    #[case(json!({ "type": "function", "function": { "name": "weather", "parameters": schema() } }))]
    #[case(json!({ "type": "function", "name": "weather", "parameters": schema() }))]
    #[case(json!({ "name": "weather", "input_schema": schema() }))]
    fn call_is_the_same_in_every_protocol_and_fits_the_schema(#[case] tool: Value) {
        let call = choose(&[tool], None, words()).unwrap();

        assert_eq!(call.name, "weather");
        assert!(call.arguments["city"].is_string());
        assert_eq!(call.arguments["unit"], "celsius");
        assert!(call.arguments["days"].is_u64());
        assert!(call.arguments["tags"][0].is_string());
        let again = json!({ "name": "weather", "input_schema": schema() });
        assert_eq!(choose(&[again], None, words()).unwrap(), call);
    }

    #[rstest]
    #[case(json!("none"), None)]
    #[case(json!({ "type": "none" }), None)]
    #[case(json!("auto"), Some("first"))]
    #[case(json!({ "type": "function", "function": { "name": "second" } }), Some("second"))]
    #[case(json!({ "type": "tool", "name": "second" }), Some("second"))]
    #[case(json!({ "type": "tool", "name": "third" }), None)]
    fn choice_of_the_client_is_respected(#[case] choice: Value, #[case] expected: Option<&str>) {
        let tools = [json!({ "name": "first" }), json!({ "name": "second" })];

        let call = choose(&tools, Some(&choice), words());

        assert_eq!(call.map(|call| call.name).as_deref(), expected);
    }

    #[test]
    fn nothing_is_called_where_nothing_is_offered() {
        assert_eq!(choose(&[], None, words()), None);
    }
}
