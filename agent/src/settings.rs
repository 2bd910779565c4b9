//! The settings file: what a person writes, or the settings panel. Reading it changes nothing;
//! saving keeps comments and order, and leaves either the old file or the new one.

use std::io;
use std::path::{Path, PathBuf};

use ollama_coordinator_common::atomic_file;
use toml_edit::{Document, DocumentMut, Item, Value};

use crate::config::{Args, InvalidValue, Setting};
use crate::platform;

/// How much a key may differ from a setting that is suggested for it.
const SIMILAR: f64 = 0.75;

/// A settings file as it was read.
#[derive(Debug, Clone)]
pub struct SettingsFile {
    path: PathBuf,
    text: String,
    args: Args,
}

impl SettingsFile {
    /// Reads the file; one that does not exist says nothing.
    ///
    /// # Errors
    /// It cannot be read, or names what is wrong in it, and where.
    pub fn open(path: &Path) -> Result<Self, SettingsError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                let path = path.to_owned();
                return Err(SettingsError::Read { path, source });
            }
        };
        Self::parse(path, text)
    }

    fn parse(path: &Path, text: String) -> Result<Self, SettingsError> {
        let at = |span: Option<std::ops::Range<usize>>| Place {
            path: path.to_owned(),
            line: line_of(&text, span),
        };
        let document = Document::parse(text.as_str());
        let document = document.map_err(|error| SettingsError::Syntax {
            place: at(error.span()),
            message: error.message().to_owned(),
        })?;
        let mut args = Args::default();
        for (key, item) in document.iter() {
            let span = document.get_key_value(key).and_then(|(key, _)| key.span());
            let Some(setting) = Setting::of_key(key) else {
                return Err(SettingsError::UnknownKey {
                    place: at(span),
                    key: key.to_owned(),
                    hint: hint(key),
                });
            };
            let value = written(item).ok_or_else(|| SettingsError::Kind {
                place: at(span.clone()),
                setting,
            })?;
            let place = at(item.span().or(span));
            args.set(setting, &value)
                .map_err(|source| SettingsError::Value {
                    place,
                    setting,
                    source,
                })?;
        }
        let path = path.to_owned();
        Ok(Self { path, text, args })
    }

    /// Returns what it says.
    pub fn args(&self) -> &Args {
        &self.args
    }

    /// Returns the file as it would be with these changes; `None` takes a setting out.
    ///
    /// # Errors
    /// A value is unusable.
    pub fn changed(
        &self,
        changes: impl IntoIterator<Item = (Setting, Option<String>)>,
    ) -> Result<Self, SettingsError> {
        let document = self.text.parse::<DocumentMut>();
        let mut document = document.expect("the text has been read before");
        for (setting, value) in changes {
            let table = document.as_table_mut();
            let Some(value) = value else {
                table.remove(setting.key());
                continue;
            };
            let value = to_write(setting, &value);
            match table.get_mut(setting.key()).and_then(Item::as_value_mut) {
                Some(known) => {
                    let decor = known.decor().clone();
                    *known = value;
                    *known.decor_mut() = decor;
                }
                None => {
                    table.insert(setting.key(), Item::Value(value));
                }
            }
        }
        Self::parse(&self.path, document.to_string())
    }

    /// Writes it, whole or not at all, for the owner only.
    ///
    /// # Errors
    /// The directory or file cannot be written.
    pub fn save(&self) -> Result<(), SettingsError> {
        let failed = |source| SettingsError::Write {
            path: self.path.clone(),
            source,
        };
        if let Some(directory) = self.path.parent() {
            platform::create_private_dir(directory).map_err(failed)?;
        }
        atomic_file::write(&self.path, self.text.as_bytes()).map_err(failed)
    }
}

/// Returns a value as its flag would be written.
fn written(item: &Item) -> Option<String> {
    match item.as_value()? {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::InlineTable(_) => None,
    }
}

/// Counts are written as numbers, all else as text.
fn to_write(setting: Setting, text: &str) -> Value {
    let is_count = matches!(setting, Setting::Capacity | Setting::RegisterMaxAttempts);
    match text.trim().parse::<i64>() {
        Ok(number) if is_count => number.into(),
        Ok(_) | Err(_) => text.into(),
    }
}

fn line_of(text: &str, span: Option<std::ops::Range<usize>>) -> usize {
    let before = span.and_then(|span| text.as_bytes().get(..span.start));
    let breaks = before
        .unwrap_or_default()
        .iter()
        .filter(|byte| **byte == b'\n');
    breaks.count() + 1
}

fn hint(key: &str) -> String {
    let wanted = key.replace('-', "_").to_ascii_lowercase();
    let likeness = |setting: &Setting| strsim::jaro_winkler(&wanted, setting.key());
    let likest = Setting::ALL
        .into_iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match likest {
        Some(setting) if likeness(&setting) >= SIMILAR => format!("did you mean `{setting}`?"),
        Some(_) | None => {
            let known = Setting::ALL.map(Setting::key).join(", ");
            format!("known are {known}")
        }
    }
}

/// Where in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    line: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, line {}", self.path.display(), self.line)
    }
}

/// Why the settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// It exists and cannot be read.
    #[error("the settings file {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        message: String,
    },
    /// It has a key that is no setting.
    #[error("{place}: there is no setting `{key}`; {hint}")]
    UnknownKey {
        /// Where.
        place: Place,
        /// What it says.
        key: String,
        /// What may be meant.
        hint: String,
    },
    /// A value is neither text nor a number.
    #[error("{place}: `{setting}` must be a text or a number")]
    Kind {
        /// Where.
        place: Place,
        /// Which setting.
        setting: Setting,
    },
    /// A value is not one that the setting can have.
    #[error("{place}: `{setting}` is unusable")]
    Value {
        /// Where.
        place: Place,
        /// Which setting.
        setting: Setting,
        /// What is allowed.
        source: InvalidValue,
    },
    /// It cannot be written.
    #[error("the settings file {} cannot be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(text: &str) -> Result<SettingsFile, SettingsError> {
        SettingsFile::parse(Path::new("/etc/settings.toml"), text.to_owned())
    }

    #[test]
    fn settings_are_read_as_flags_would_be() {
        let file = parse(
            "coordinator = \"gpu-hub\"\ncapacity = 4\nheartbeat_interval = 0.5\npanel = \"off\"\n",
        );

        let args = file.unwrap().args;
        let text = |setting| args.text(setting).unwrap();
        assert_eq!(text(Setting::Coordinator), "http://gpu-hub:11400");
        assert_eq!(text(Setting::Capacity), "4");
        assert_eq!(text(Setting::HeartbeatInterval), "500ms");
        assert_eq!(text(Setting::Panel), "off");
        assert_eq!(args.text(Setting::Runtime), None);
    }

    #[rstest]
    #[case(
        "\ncoordinater = \"x\"",
        "line 2: there is no setting `coordinater`; did you mean `coordinator`?"
    )]
    #[case(
        "machine-name = \"x\"",
        "line 1: there is no setting `machine-name`; did you mean `machine_name`?"
    )]
    #[case("zzz = 1", "known are coordinator, runtime")]
    #[case("[runtime]\nurl = 1", "line 1: `runtime` must be a text or a number")]
    #[case(
        "capacity = 2\n\nruntime = \"ftp://x\"",
        "line 3: `runtime` is unusable"
    )]
    #[case("capacity = 0", "1 to 10000")]
    #[case("capacity = 1\ncapacity = 2", "/etc/settings.toml, line 2: ")]
    #[case("a = \nb = 1", "/etc/settings.toml, line 1: ")]
    fn what_is_wrong_is_named_with_its_line(#[case] text: &str, #[case] expected: &str) {
        let error = parse(text).unwrap_err();

        let error = crate::error_chain(&error);
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn changes_keep_comments_and_order() {
        let before = "# Mine\nruntime = \"127.0.0.1:1\" # the second card\ncapacity = 4\n";

        let changed = parse(before).unwrap().changed([
            (Setting::Runtime, Some("127.0.0.1:2".to_owned())),
            (Setting::Capacity, None),
            (Setting::Coordinator, Some("gpu-hub".to_owned())),
        ]);

        let expected =
            "# Mine\nruntime = \"127.0.0.1:2\" # the second card\ncoordinator = \"gpu-hub\"\n";
        assert_eq!(changed.unwrap().text, expected);
    }

    #[test]
    fn unusable_change_is_refused() {
        let change = [(Setting::Capacity, Some("many".to_owned()))];

        let error = parse("").unwrap().changed(change).unwrap_err().to_string();

        assert!(error.contains("`capacity` is unusable"), "{error}");
    }
}
