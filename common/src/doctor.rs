//! What `doctor` says: checks with stable ids, one answer and one remedy each, as text and as JSON.
//!
//! Nothing here asks anybody; [`connection`] looks at a coordinator, and changes nothing there.

pub mod connection;
pub mod directory;
mod id;
pub mod impostor;
pub mod routable;

use std::fmt::{self, Write as _};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::id::CheckId;

const SCHEMA: &str = "ollama-coordinator.doctor/1";
/// The exit code of a report with an error.
const BROKEN: u8 = 4;

/// How it is about one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warning,
    /// It does not work.
    Error,
    /// It could not be found out.
    Unknown,
}

impl Answer {
    /// Returns the sign that stands for it in texts.
    pub fn sign(self) -> char {
        match self {
            Self::Ok => '✓',
            Self::Warning => '!',
            Self::Error => '✗',
            Self::Unknown => '?',
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Which.
    pub id: CheckId,
    /// How it is.
    pub answer: Answer,
    /// What was found, in one line.
    pub found: String,
    /// What to do about it, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// Makes the answer that all is well.
    pub fn ok(id: CheckId, found: impl Into<String>) -> Self {
        Self::new(id, Answer::Ok, found)
    }

    /// Makes the answer that it works, but not as well as it could.
    pub fn warning(id: CheckId, found: impl Into<String>) -> Self {
        Self::new(id, Answer::Warning, found)
    }

    /// Makes the answer that it does not work.
    pub fn error(id: CheckId, found: impl Into<String>) -> Self {
        Self::new(id, Answer::Error, found)
    }

    /// Makes the answer that it could not be found out.
    pub fn unknown(id: CheckId, found: impl Into<String>) -> Self {
        Self::new(id, Answer::Unknown, found)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn new(id: CheckId, answer: Answer, found: impl Into<String>) -> Self {
        Self {
            id,
            answer,
            found: found.into(),
            remedy: None,
        }
    }
}

impl fmt::Display for Check {
    /// Writes what was found and what to do about it, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

/// All that was looked at, in the order in which one thing depends on another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    schema: String,
    generated_at: DateTime<Utc>,
    /// The first check that is broken: what comes after it may be broken because of it.
    pub first_broken: Option<CheckId>,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Report {
    /// Makes the report of these checks, in the order in which one thing depends on another.
    pub fn new(mut checks: Vec<Check>, now: DateTime<Utc>) -> Self {
        checks.sort_by_key(|check| check.id);
        Self {
            schema: SCHEMA.to_owned(),
            generated_at: now,
            first_broken: first_broken(&checks).map(|check| check.id),
            checks,
        }
    }

    /// Returns the process's exit code: 0, or 4 when something is broken.
    pub fn exit_code(&self) -> u8 {
        if self.first_broken.is_some() {
            BROKEN
        } else {
            0
        }
    }

    /// Returns the report for people; what matters most stands last.
    pub fn to_text(&self) -> String {
        let width = self.checks.iter().map(|check| check.id.name().len()).max();
        let width = width.unwrap_or_default();
        let mut text = String::new();
        for check in &self.checks {
            let (sign, name) = (check.answer.sign(), check.id.name());
            line(
                &mut text,
                format_args!("{sign} {name:<width$}  {}", check.found),
            );
            if let Some(remedy) = &check.remedy {
                line(&mut text, format_args!("  {:<width$}  -> {remedy}", ""));
            }
        }
        line(&mut text, format_args!("\n{}", self.counts()));
        text.push_str(&conclusion(&self.checks));
        text
    }

    /// Returns the report for programs. Fields are only ever added.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self);
        json.expect("plain fields become JSON") + "\n"
    }

    fn counts(&self) -> String {
        let counted = |answer, one: &str| {
            let count = self.checks.iter().filter(|c| c.answer == answer).count();
            let plural = if count == 1 || one == "unknown" {
                ""
            } else {
                "s"
            };
            format!("{count} {one}{plural}")
        };
        format!(
            "{}, {}, {}.",
            counted(Answer::Error, "error"),
            counted(Answer::Warning, "warning"),
            counted(Answer::Unknown, "unknown"),
        )
    }
}

/// Returns the first check that is broken.
pub fn first_broken(checks: &[Check]) -> Option<&Check> {
    checks.iter().find(|check| check.answer == Answer::Error)
}

/// Returns the last lines of a report: the first broken thing and its remedy.
pub fn conclusion(checks: &[Check]) -> String {
    let mut text = String::new();
    match first_broken(checks) {
        Some(Check {
            id, found, remedy, ..
        }) => {
            line(&mut text, format_args!("Result: {}: {found}", id.name()));
            if let Some(remedy) = remedy {
                line(&mut text, format_args!("Fix:    {remedy}"));
            }
        }
        None => line(&mut text, format_args!("Result: nothing is broken")),
    }
    text
}

fn line(text: &mut String, line: fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let checks = vec![
            Check::error(CheckId::Runtime, "refused too"),
            Check::ok(CheckId::Settings, "all are usable"),
            Check::warning(CheckId::Agent, "is not there").with_remedy("run it"),
            Check::error(CheckId::Tcp, "refused").with_remedy("start it"),
            Check::unknown(CheckId::Gpu, "nobody to ask"),
        ];
        Report::new(checks, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn text_ends_with_the_first_broken_thing_and_its_remedy() {
        let expected = "\
✓ settings  all are usable
! agent     is not there
            -> run it
✗ tcp       refused
            -> start it
✗ runtime   refused too
? gpu       nobody to ask

2 errors, 1 warning, 1 unknown.
Result: tcp: refused
Fix:    start it
";

        assert_eq!(report().to_text(), expected);
        assert_eq!(report().exit_code(), 4);
    }

    #[test]
    fn warnings_and_what_is_unknown_break_nothing() {
        let checks = vec![
            Check::warning(CheckId::Clock, "late"),
            Check::unknown(CheckId::Gpu, "?"),
        ];

        let report = Report::new(checks, DateTime::UNIX_EPOCH);

        assert_eq!(report.exit_code(), 0);
        assert!(report.to_text().ends_with("Result: nothing is broken\n"));
    }

    #[test]
    fn json_names_the_first_broken_check_by_its_id() {
        let json: serde_json::Value = serde_json::from_str(&report().to_json()).unwrap();

        assert_eq!(json["schema"], "ollama-coordinator.doctor/1");
        assert_eq!(json["first_broken"], "tcp");
        assert_eq!(json["checks"][1]["answer"], "warning");
        assert_eq!(json["checks"][1]["remedy"], "run it");
    }
}
