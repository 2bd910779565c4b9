//! The settings that people edit in the panel: what the form shows, and what a sent one means. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::config::{Args, Given, Origin, Resolved, Setting};
use crate::settings::SettingsFile;

/// The settings in the form, in its order.
pub(super) const EDITABLE: [Setting; 4] = [
    Setting::Coordinator,
    Setting::MachineName,
    Setting::Runtime,
    Setting::Capacity,
];

/// The form as it was sent.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Sent {
    #[serde(default)]
    pub(super) action: Action,
    #[serde(default)]
    pub(super) start_at_login: Option<String>,
    #[serde(flatten)]
    values: BTreeMap<String, String>,
}

/// Which button was pressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Action {
    /// Keep the settings and go on with them.
    #[default]
    Save,
    /// Only see whether the coordinator can be reached.
    Test,
}

/// One setting as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) setting: Setting,
    /// What can be edited, or what is fixed.
    pub(super) value: String,
    /// What is used while nothing is written.
    pub(super) otherwise: String,
    /// Who fixed it, if it cannot be edited here.
    pub(super) fixed_by: Option<Origin>,
    /// What is wrong with it.
    pub(super) error: Option<String>,
}

/// Returns the form as the settings are.
pub(super) fn fields(given: &Given, resolved: &Resolved, file: &Args) -> Vec<Field> {
    let field = |setting: Setting| {
        let fixed_by = given.fixed_by(setting).cloned();
        let shown = resolved.shown.iter().find(|shown| shown.setting == setting);
        let in_force = shown
            .and_then(|shown| shown.value.clone())
            .unwrap_or_default();
        let written = file.text(setting).unwrap_or_default();
        let is_default = written.is_empty() && fixed_by.is_none();
        Field {
            setting,
            value: if fixed_by.is_some() {
                in_force.clone()
            } else {
                written
            },
            otherwise: if is_default { in_force } else { String::new() },
            fixed_by,
            error: None,
        }
    };
    EDITABLE.into_iter().map(field).collect()
}

/// Fills in what was sent, and marks what is unusable.
pub(super) fn fill(fields: &mut [Field], sent: &Sent) {
    for field in fields.iter_mut().filter(|field| field.fixed_by.is_none()) {
        let text = sent.values.get(field.setting.key());
        field.value = text.map_or_else(String::new, |text| text.trim().to_owned());
        field.error = unusable(field.setting, &field.value);
    }
}

fn unusable(setting: Setting, value: &str) -> Option<String> {
    if value.is_empty() {
        let is_needed = setting == Setting::Coordinator;
        return is_needed.then(|| "Enter the URL that ollama-coordinator prints".to_owned());
    }
    let read = Args::default().set(setting, value);
    read.err().map(|error| error.to_string())
}

/// Returns what the file has to say after that.
pub(super) fn changes(fields: &[Field]) -> Vec<(Setting, Option<String>)> {
    let editable = fields.iter().filter(|field| field.fixed_by.is_none());
    let change = |field: &Field| {
        let value = Some(field.value.clone()).filter(|value| !value.is_empty());
        (field.setting, value)
    };
    editable.map(change).collect()
}

/// Returns the changes that make the file another one.
pub(super) fn news(
    file: &SettingsFile,
    changes: Vec<(Setting, Option<String>)>,
) -> Vec<(Setting, Option<String>)> {
    let mut changes = changes;
    changes.retain(|(setting, value)| file.args().text(*setting) != *value);
    changes
}
