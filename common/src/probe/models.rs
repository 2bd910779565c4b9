//! Turns a runtime's lists of models into ours: bounded, cleaned, sorted.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize as _;
use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::protocol::runtime::{LoadedModel, Model, ModelDetails};

/// The most models that are kept of one list.
const MAX_MODELS: usize = 2_000;
/// The longest entry that is read, in bytes.
const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// The longest string that is kept, in characters.
const MAX_CHARS: usize = 255;
/// The most entries that are kept of a list inside one model.
const MAX_ENTRIES: usize = 32;

/// What is sorted by its name.
pub(super) trait Named {
    /// Returns the name.
    fn name(&self) -> &str;
}

impl Named for Model {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for LoadedModel {
    fn name(&self) -> &str {
        &self.name
    }
}

/// Reads every entry of `list`, drops what is unusable or twice there, and sorts by name.
pub(super) fn sorted<M: Named>(list: Option<&RawValue>, read: fn(&Value) -> Option<M>) -> Vec<M> {
    let Some(list) = list else {
        return Vec::new();
    };
    let mut entries = serde_json::Deserializer::from_str(list.get());
    let kept = entries.deserialize_seq(Entries { read });
    kept.unwrap_or_default()
}

/// Reads a list entry by entry, so that what is dropped takes no memory.
struct Entries<M> {
    read: fn(&Value) -> Option<M>,
}

impl<'de, M: Named> Visitor<'de> for Entries<M> {
    type Value = Vec<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of models")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<M>, A::Error> {
        let mut models = BTreeMap::new();
        let mut entries = 0;
        while let Some(entry) = list.next_element::<&RawValue>()? {
            entries += 1;
            let Some(model) = parse(entry).as_ref().and_then(self.read) else {
                continue;
            };
            models.entry(model.name().to_owned()).or_insert(model);
            if models.len() > MAX_MODELS {
                models.pop_last();
            }
        }
        let kept = models.len();
        if entries > kept {
            let dropped = entries - kept;
            tracing::debug!(dropped, kept, "Left out unusable models of a runtime");
        }
        Ok(models.into_values().collect())
    }
}

fn parse(entry: &RawValue) -> Option<Value> {
    let is_bounded = entry.get().len() <= MAX_ENTRY_BYTES;
    is_bounded.then(|| serde_json::from_str(entry.get()).ok())?
}

/// Reads one entry of Ollama's `GET /api/tags`.
pub(super) fn ollama(entry: &Value) -> Option<Model> {
    let text = |field| entry.get(field).and_then(text_of);
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
    let text = |field| entry.get(field).and_then(text_of);
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
    entry.get("id").and_then(text_of).map(Model::named)
}

/// Returns `text` if it is worth keeping: not empty, not long, no control characters.
pub(super) fn clean(text: &str) -> Option<String> {
    let usable = !text.is_empty()
        && text.chars().nth(MAX_CHARS).is_none()
        && !text.chars().any(char::is_control);
    usable.then(|| text.to_owned())
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().and_then(clean)
}

fn details(value: &Value) -> Option<ModelDetails> {
    let said = ModelDetails::deserialize(value).ok()?;
    let keep = |text: String| clean(&text).unwrap_or_default();
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
    entries.filter_map(text_of).take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn names(list: &Value) -> Vec<String> {
        let list = serde_json::value::to_raw_value(list).unwrap();
        let models = sorted(Some(&list), ollama);
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
    fn entry_of_absurd_size_is_dropped_unread() {
        let padding = "x".repeat(64 * 1024);
        let list = json!([{"name": "a", "padding": padding}, {"name": "b"}]);

        assert_eq!(names(&list), ["b"]);
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
            if let Some(kept) = clean(&text) {
                prop_assert!((1..=255).contains(&kept.chars().count()));
                prop_assert!(!kept.chars().any(char::is_control));
            }
        }
    }
}
