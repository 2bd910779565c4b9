//! Rules for what callers write, each broken one named with its field. Pure.

use std::collections::BTreeMap;

use ollama_coordinator_common::protocol::error::FieldError;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::register::RegisterRequest;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::system::SystemInfo;
use ollama_coordinator_common::protocol::view::PatchAgentRequest;

use super::error::ApiError;

const MAX_NAME: usize = 255;
const MAX_NOTES: usize = 4_096;
const MAX_LABELS: usize = 64;
const MAX_MODELS: usize = 2_000;
const MAX_GPUS: usize = 64;

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

/// Checks a heartbeat.
pub fn heartbeat(request: &HeartbeatRequest) -> Result<(), ApiError> {
    let Some(report) = &request.runtime else {
        return Ok(());
    };
    let mut rules = Rules::default();
    rules.report(report);
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
    rules.verdict()
}

impl Rules {
    fn broken(&mut self, field: impl Into<String>, detail: &str) {
        self.0.push(FieldError {
            field: field.into(),
            detail: detail.to_owned(),
        });
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
        if text.chars().count() > MAX_NAME {
            self.broken(field, "must have at most 255 characters");
        } else if text.chars().any(is_hidden) {
            self.broken(
                field,
                "must not contain control or text-direction characters",
            );
        }
    }

    fn report(&mut self, report: &RuntimeReport) {
        self.optional("runtime.version", report.version.as_deref());
        if report.models.len() > MAX_MODELS {
            self.broken("runtime.models", "must have at most 2000 entries");
            return;
        }
        if report.loaded_models.len() > MAX_MODELS {
            self.broken("runtime.loaded_models", "must have at most 2000 entries");
            return;
        }
        for (index, model) in report.models.iter().enumerate() {
            if model.name.is_empty() {
                self.broken(format!("runtime.models[{index}].name"), "must not be empty");
            }
            self.text(format!("runtime.models[{index}].name"), &model.name);
        }
        for (index, model) in report.loaded_models.iter().enumerate() {
            self.text(format!("runtime.loaded_models[{index}].name"), &model.name);
        }
    }

    fn system(&mut self, system: &SystemInfo) {
        self.optional("system_info.os", system.os.as_deref());
        self.optional("system_info.arch", system.arch.as_deref());
        self.optional("system_info.cpu", system.cpu.as_deref());
        let gpus = system.gpus.as_deref().unwrap_or_default();
        if gpus.len() > MAX_GPUS {
            self.broken("system_info.gpus", "must have at most 64 entries");
        }
        for (index, gpu) in gpus.iter().enumerate() {
            self.text(format!("system_info.gpus[{index}].name"), &gpu.name);
            self.optional("system_info.gpus.driver", gpu.driver.as_deref());
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        if labels.len() > MAX_LABELS {
            self.broken("labels", "must be at most 64");
        }
        for (key, value) in labels {
            self.name("labels", key);
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

/// Control characters, and those that reorder or hide text on a screen.
fn is_hidden(c: char) -> bool {
    let reorders = matches!(
        c,
        '\u{061c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    c.is_control() || reorders
}
