//! Rules for what callers write, each broken one named with its field. Pure.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use ollama_coordinator_common::name::{self, is_hidden};
use ollama_coordinator_common::protocol::error::FieldError;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::register::RegisterRequest;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeReport};
use ollama_coordinator_common::protocol::system::{Metrics, SystemInfo};
use ollama_coordinator_common::protocol::view::PatchAgentRequest;
use ollama_coordinator_common::version::{self, Version};

use super::error::ApiError;

const MAX_NOTES: usize = 4_096;
const MAX_LABELS: usize = 64;
const MAX_MODELS: usize = 2_000;
const MAX_GPUS: usize = 64;
const MAX_CAPACITY: u32 = 10_000;
/// What the contract calls `int64`. Beyond it an epoch could not grow any more.
const MAX_COUNT: u64 = u64::MAX >> 1;
/// The most words a list such as a model's capabilities may have.
const MAX_WORDS: usize = 32;

/// Collects broken rules, so that a caller learns all of them at once.
#[derive(Debug, Default)]
struct Rules(Vec<FieldError>);

/// Checks a registration.
pub fn registration(request: &RegisterRequest) -> Result<(), ApiError> {
    let mut rules = Rules::default();
    rules.name("machine_name", &request.machine_name);
    if request.port == 0 {
        rules.broken("port", "must be 1 to 65535");
    }
    rules.count("epoch", request.epoch);
    rules.optional("ollama_version", request.ollama_version.as_deref());
    rules.optional("agent_version", request.agent_version.as_deref());
    if let Some(report) = &request.runtime {
        rules.report(report);
    }
    if let Some(system) = &request.system_info {
        rules.system(system);
    }
    rules.verdict()
}

/// Refuses an agent that is too old to be understood. One that does not tell its version in numbers
/// is none of ours and is taken as it is.
pub fn agent_version(told: Option<&str>) -> Result<(), ApiError> {
    match told.and_then(Version::parse) {
        Some(agent) if agent < version::OLDEST_AGENT => Err(ApiError::AgentTooOld(
            version::too_old(&agent.to_string(), version::OWN, version::OLDEST_AGENT),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Checks a heartbeat.
pub fn heartbeat(request: &HeartbeatRequest) -> Result<(), ApiError> {
    let mut rules = Rules::default();
    rules.count("epoch", request.epoch);
    rules.count("seq", request.seq);
    if let Some(report) = &request.runtime {
        rules.report(report);
    }
    if let Some(metrics) = &request.metrics {
        rules.metrics(metrics);
    }
    rules.verdict()
}

/// Checks what an operator wants to change.
pub fn patch(request: &PatchAgentRequest) -> Result<(), ApiError> {
    let mut rules = Rules::default();
    if let Some(name) = request
        .display_name
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        rules.name("display_name", name);
    }
    if let Some(notes) = &request.notes {
        let has_controls = notes
            .chars()
            .any(|c| is_hidden(c) && c != '\n' && c != '\t');
        if notes.chars().count() > MAX_NOTES || has_controls {
            rules.broken(
                "notes",
                "must be at most 4096 characters without control characters",
            );
        }
    }
    if let Some(labels) = &request.labels {
        rules.labels(labels);
    }
    if request
        .capacity
        .is_some_and(|capacity| capacity > MAX_CAPACITY)
    {
        rules.broken("capacity", "must be 0 to 10000");
    }
    rules.verdict()
}

impl Rules {
    fn broken(&mut self, field: impl Into<String>, detail: &str) {
        self.0.push(FieldError {
            field: field.into(),
            detail: detail.to_owned(),
        });
    }

    fn count(&mut self, field: &str, count: Option<u64>) {
        if count.is_some_and(|count| count > MAX_COUNT) {
            self.broken(field, "must be at most 9223372036854775807");
        }
    }

    fn name(&mut self, field: &str, text: &str) {
        if text.trim().is_empty() {
            self.broken(field, "must not be empty");
        }
        self.text(field, text);
    }

    fn optional(&mut self, field: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(field, text);
        }
    }

    fn text(&mut self, field: impl Into<String>, text: &str) {
        if let Err(invalid) = name::check(text) {
            self.broken(field, &invalid.to_string());
        }
    }

    fn report(&mut self, report: &RuntimeReport) {
        self.optional("runtime.version", report.version.as_deref());
        let too_many = report.models.len().max(report.loaded_models.len()) > MAX_MODELS;
        if too_many {
            self.broken(
                "runtime.models",
                "must have at most 2000 entries, as loaded_models",
            );
            return;
        }
        let mut names = HashSet::new();
        for (index, model) in report.models.iter().enumerate() {
            let field = |name: &str| format!("runtime.models[{index}].{name}");
            self.name(&field("name"), &model.name);
            if !names.insert(&model.name) {
                self.broken(field("name"), "must not appear twice");
            }
            self.model(model, &field);
        }
        for (index, model) in report.loaded_models.iter().enumerate() {
            let field = |name: &str| format!("runtime.loaded_models[{index}].{name}");
            self.name(&field("name"), &model.name);
            self.optional(&field("expires_at"), model.expires_at.as_deref());
        }
    }

    fn model(&mut self, model: &Model, field: &impl Fn(&str) -> String) {
        self.optional(&field("digest"), model.digest.as_deref());
        self.optional(&field("modified_at"), model.modified_at.as_deref());
        self.list(&field("capabilities"), &model.capabilities);
        let Some(details) = &model.details else {
            return;
        };
        self.text(field("details.parent_model"), &details.parent_model);
        self.text(field("details.format"), &details.format);
        self.text(field("details.family"), &details.family);
        self.text(field("details.parameter_size"), &details.parameter_size);
        self.text(
            field("details.quantization_level"),
            &details.quantization_level,
        );
        self.list(
            &field("details.families"),
            details.families.as_deref().unwrap_or_default(),
        );
    }

    fn list(&mut self, field: &str, texts: &[String]) {
        if texts.len() > MAX_WORDS {
            self.broken(field, "must have at most 32 entries");
            return;
        }
        for text in texts {
            self.text(field, text);
        }
    }

    fn system(&mut self, system: &SystemInfo) {
        self.optional("system_info.os", system.os.as_deref());
        self.optional("system_info.arch", system.arch.as_deref());
        self.optional("system_info.cpu", system.cpu.as_deref());
        let gpus = system.gpus.as_deref().unwrap_or_default();
        if gpus.len() > MAX_GPUS {
            self.broken("system_info.gpus", "must have at most 64 entries");
            return;
        }
        for (index, gpu) in gpus.iter().enumerate() {
            self.name(&format!("system_info.gpus[{index}].name"), &gpu.name);
            self.optional(
                &format!("system_info.gpus[{index}].driver"),
                gpu.driver.as_deref(),
            );
        }
    }

    fn metrics(&mut self, metrics: &Metrics) {
        let mut figure = |field: &str, value: Option<f32>, range: RangeInclusive<f32>| {
            if value.is_some_and(|value| !range.contains(&value)) {
                let (min, max) = (range.start(), range.end());
                self.broken(
                    format!("metrics.{field}"),
                    &format!("must be {min} to {max}"),
                );
            }
        };
        figure("cpu_percent", metrics.cpu_percent, 0.0..=100.0);
        figure("gpu_percent", metrics.gpu_percent, 0.0..=100.0);
        figure(
            "gpu_temperature_celsius",
            metrics.gpu_temperature_celsius,
            -100.0..=1000.0,
        );
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > MAX_LABELS {
            self.broken("labels", "must be at most 64");
        }
        for (key, value) in labels {
            let field = if key.is_empty() {
                "labels".to_owned()
            } else {
                format!("labels.{}", key.escape_default())
            };
            self.name(&field, key);
            self.text(format!("labels.{}", key.escape_default()), value);
        }
    }

    fn verdict(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(ApiError::Invalid(self.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ollama_coordinator_common::protocol::runtime::{LoadedModel, ModelDetails};
    use proptest::prelude::*;
    use rstest::rstest;
    use serde::Deserialize as _;
    use serde_json::Value;

    fn fields(verdict: Result<(), ApiError>) -> Vec<String> {
        match verdict {
            Ok(()) => Vec::new(),
            Err(ApiError::Invalid(errors)) => errors.into_iter().map(|e| e.field).collect(),
            Err(other) => panic!("it names no fields: {other}"),
        }
    }

    fn with_report(change: impl FnOnce(&mut RuntimeReport)) -> HeartbeatRequest {
        let mut report = RuntimeReport {
            models: vec![Model::named("a")],
            ..RuntimeReport::default()
        };
        change(&mut report);
        HeartbeatRequest {
            runtime: Some(report),
            ..HeartbeatRequest::default()
        }
    }

    fn with_details(change: impl FnOnce(&mut ModelDetails)) -> HeartbeatRequest {
        let mut details = ModelDetails::default();
        change(&mut details);
        with_report(|report| report.models[0].details = Some(details))
    }

    fn loaded(name: &str, expires_at: &str) -> LoadedModel {
        LoadedModel {
            name: name.to_owned(),
            size: None,
            size_vram: None,
            expires_at: Some(expires_at.to_owned()),
            context_length: None,
        }
    }

    #[rstest]
    #[case(with_report(|r| r.models[0].name.clear()), "runtime.models[0].name")]
    #[case(with_report(|r| r.models.push(Model::named("a"))), "runtime.models[1].name")]
    #[case(with_report(|r| r.models[0].digest = Some("\u{1b}[2J".to_owned())), "runtime.models[0].digest")]
    #[case(with_report(|r| r.models[0].modified_at = Some("x".repeat(256))), "runtime.models[0].modified_at")]
    #[case(with_report(|r| r.models[0].capabilities = vec!["x".to_owned(); 33]), "runtime.models[0].capabilities")]
    #[case(with_report(|r| r.loaded_models.push(loaded("", "soon"))), "runtime.loaded_models[0].name")]
    #[case(with_report(|r| r.loaded_models.push(loaded("a", "\u{202e}"))), "runtime.loaded_models[0].expires_at")]
    #[case(with_details(|d| d.family = "\n".to_owned()), "runtime.models[0].details.family")]
    #[case(with_details(|d| d.families = Some(vec!["\u{feff}".to_owned()])), "runtime.models[0].details.families")]
    fn every_text_of_a_report_is_checked(#[case] request: HeartbeatRequest, #[case] field: &str) {
        assert_eq!(fields(heartbeat(&request)), [field]);
    }

    #[rstest]
    #[case(Some(-1.0))]
    #[case(Some(100.5))]
    #[case(Some(f32::INFINITY))]
    fn percentages_are_percentages(#[case] cpu_percent: Option<f32>) {
        let metrics = Some(Metrics {
            cpu_percent,
            ..Metrics::default()
        });
        let request = HeartbeatRequest {
            metrics,
            ..HeartbeatRequest::default()
        };

        assert_eq!(fields(heartbeat(&request)), ["metrics.cpu_percent"]);
    }

    #[test]
    fn counts_leave_room_to_grow() {
        let counted = |count| HeartbeatRequest {
            epoch: Some(count),
            seq: Some(count),
            ..HeartbeatRequest::default()
        };

        assert_eq!(fields(heartbeat(&counted(MAX_COUNT))), Vec::<String>::new());
        assert_eq!(fields(heartbeat(&counted(MAX_COUNT + 1))), ["epoch", "seq"]);
    }

    #[test]
    fn joined_emoji_are_no_hidden_text() {
        let patch_name = PatchAgentRequest {
            display_name: Some("\u{1f469}\u{200d}\u{1f4bb}".to_owned()),
            ..PatchAgentRequest::default()
        };

        assert_eq!(fields(patch(&patch_name)), Vec::<String>::new());
    }

    /// Names that mean something in what agents send, and one that does not.
    const FIELDS: &str = "\
        machine_name port ip_address link agent_id session epoch runtime system_info \
        agent_version ollama_version models loaded_models name details family families \
        parent_model format parameter_size quantization_level capabilities digest size gpus \
        driver os cpu metrics cpu_percent seq draining status kind version expires_at \
        modified_at notes display_name labels capacity hostname x";

    /// Documents whose fields are mostly those of registrations and heartbeats.
    fn any_document() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "[a-z0-9:.-]{0,12}",
            any::<String>(),
            Just("x".repeat(256)),
            Just("\u{202e}".to_owned()),
            Just("00000000-0000-0000-0000-000000000001".to_owned()),
            Just("10.0.0.1".to_owned()),
            Just("tunnel".to_owned()),
            Just("running".to_owned()),
            Just("ollama".to_owned()),
        ];
        let leaf = prop_oneof![
            4 => text.prop_map(Value::from), 1 => any::<i64>().prop_map(Value::from),
            1 => any::<f64>().prop_map(Value::from), 1 => any::<bool>().prop_map(Value::from),
            1 => Just(Value::Null),
        ];
        let key = prop::sample::select(FIELDS.split(' ').collect::<Vec<_>>());
        leaf.prop_recursive(5, 48, 6, move |inner| prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::vec((key.clone(), inner), 0..8).prop_map(|fields| {
                Value::Object(fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ])
    }

    /// Returns the texts and keys of a document that nobody should see on a screen.
    fn unfit_texts(document: &Value) -> Vec<String> {
        let is_unfit = |text: &&String| name::check(text).is_err();
        match document {
            Value::String(text) => Some(text).filter(is_unfit).cloned().into_iter().collect(),
            Value::Array(items) => items.iter().flat_map(unfit_texts).collect(),
            Value::Object(fields) => {
                let keys = fields.keys().filter(is_unfit).cloned();
                keys.chain(fields.values().flat_map(unfit_texts)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn what_passes_can_be_shown(document in any_document(), name in "[a-z]{1,5}") {
            let mut document = document;
            if let Value::Object(fields) = &mut document {
                fields.entry("machine_name").or_insert(name.into());
            }
            if let Ok(request) = RegisterRequest::deserialize(&document)
                && registration(&request).is_ok()
            {
                let kept = serde_json::to_value(&request).unwrap();
                prop_assert_eq!(unfit_texts(&kept), Vec::<String>::new());
            }
            if let Ok(request) = HeartbeatRequest::deserialize(&document)
                && heartbeat(&request).is_ok()
            {
                let kept = serde_json::to_value(&request).unwrap();
                prop_assert_eq!(unfit_texts(&kept), Vec::<String>::new());
            }
            if let Ok(request) = PatchAgentRequest::deserialize(&document) {
                drop(patch(&request));
            }
        }
    }
}
