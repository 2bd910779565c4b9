//! Turns a runtime's lists of models into ours: bounded, cleaned, sorted.

use serde::Deserialize as _;
use serde_json::Value;

use crate::protocol::runtime::{LoadedModel, Model, ModelDetails};

/// The most models that are kept of one list.
const MAX_MODELS: usize = 2_000;
/// The longest string that is kept, in characters.
const MAX_CHARS: usize = 255;
/// The most entries that are kept of a list inside one model.
const MAX_ENTRIES: usize = 32;

/// Reads every entry of `list`, drops what is unusable or twice there, and sorts by name.
pub(super) fn sorted<M>(
    list: Option<&Value>,
    read: impl Fn(&Value) -> Option<M>,
    name: impl Fn(&M) -> &String,
) -> Vec<M> {
    let entries = list
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let mut models: Vec<M> = entries.iter().filter_map(read).collect();
    models.sort_by(|a, b| name(a).cmp(name(b)));
    models.dedup_by(|a, b| name(a) == name(b));
    models.truncate(MAX_MODELS);
    let dropped = entries.len() - models.len();
    if dropped > 0 {
        tracing::debug!(
            dropped,
            kept = models.len(),
            "Left out unusable models of a runtime"
        );
    }
    models
}

/// Reads one entry of Ollama's `GET /api/tags`.
pub(super) fn ollama(entry: &Value) -> Option<Model> {
    let text = |field| entry.get(field).and_then(clean);
    Some(Model {
        size: entry.get("size").and_then(Value::as_u64),
        digest: text("digest"),
        modified_at: text("modified_at"),
        details: entry.get("details").and_then(details),
        capabilities: strings(entry.get("capabilities")),
        ..Model::named(text("name").or_else(|| text("model"))?)
    })
}

/// Reads one entry of Ollama's `GET /api/ps`.
pub(super) fn loaded(entry: &Value) -> Option<LoadedModel> {
    let text = |field| entry.get(field).and_then(clean);
    let number = |field| entry.get(field).and_then(Value::as_u64);
    Some(LoadedModel {
        name: text("name").or_else(|| text("model"))?,
        size: number("size"),
        size_vram: number("size_vram"),
        expires_at: text("expires_at"),
        context_length: number("context_length"),
    })
}

/// Reads one entry of the OpenAI API's `GET /v1/models`.
pub(super) fn openai(entry: &Value) -> Option<Model> {
    entry.get("id").and_then(clean).map(Model::named)
}

/// Returns the text of `value` if it is worth keeping: not empty, not long, no control characters.
pub(super) fn clean(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let usable = !text.is_empty()
        && text.chars().nth(MAX_CHARS).is_none()
        && !text.chars().any(char::is_control);
    usable.then(|| text.to_owned())
}

fn details(value: &Value) -> Option<ModelDetails> {
    let said = ModelDetails::deserialize(value).ok()?;
    let keep = |text: String| clean(&Value::String(text)).unwrap_or_default();
    Some(ModelDetails {
        parent_model: keep(said.parent_model),
        format: keep(said.format),
        family: keep(said.family),
        families: said.families.map(|_| strings(value.get("families"))),
        parameter_size: keep(said.parameter_size),
        quantization_level: keep(said.quantization_level),
    })
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(clean).take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn names(list: &Value) -> Vec<String> {
        let models = sorted(Some(list), ollama, |m: &Model| &m.name);
        models.into_iter().map(|model| model.name).collect()
    }

    #[test]
    fn unusable_entries_are_dropped_and_the_rest_is_sorted() {
        let long = "x".repeat(256);
        let list = json!([
            {"name": "b"}, {"name": "a"}, {"name": "a"}, {"name": long}, {"name": "new\nline"},
            {"name": ""}, {"name": 7}, {}, null, "text",
        ]);

        assert_eq!(names(&list), ["a", "b"]);
    }

    #[test]
    fn odd_details_do_not_cost_the_model() {
        let entry = json!({"name": "a", "size": -1, "digest": "x\u{7}", "details": {"family": 3}});

        assert_eq!(ollama(&entry), Some(Model::named("a")));
    }

    #[test]
    fn two_thousand_models_are_kept_and_not_one_more() {
        let list: Value = (0..2_500)
            .map(|n| json!({"name": format!("m{n:04}")}))
            .collect();

        let names = names(&list);

        assert_eq!(names.len(), 2_000);
        assert_eq!(names.last().unwrap(), "m1999");
    }

    #[test]
    fn details_are_kept() {
        let entry = json!({"name": "a", "capabilities": ["tools"], "details": {
            "family": "llama", "families": ["llama"], "parameter_size": "8.0B"}});

        let model = ollama(&entry).unwrap();

        let details = model.details.unwrap();
        assert_eq!(model.capabilities, ["tools"]);
        assert_eq!(details.family, "llama");
        assert_eq!(details.families.unwrap(), ["llama"]);
    }

    proptest! {
        #[test]
        fn kept_text_is_bounded_and_printable(text in "\\PC{0,300}|(?s).{0,300}") {
            if let Some(kept) = clean(&Value::String(text)) {
                prop_assert!((1..=255).contains(&kept.chars().count()));
                prop_assert!(!kept.chars().any(char::is_control));
            }
        }
    }
}
