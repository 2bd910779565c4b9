//! `ollama-agent config`: which settings are in force, and who said so.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Failure, print};
use crate::config::{Given, Shown};

const UNSET: &str = "-";

/// What to show of the settings.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show every setting as it is in force
    Show(ShowArgs),
    /// Print where the settings file is, whether it exists or not
    Path,
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// Say of each who said it: flag, environment, file or default
    #[arg(long)]
    origin: bool,
    /// Write JSON for programs
    #[arg(long)]
    json: bool,
}

/// What `--json` writes of one setting. Fields are only ever added.
#[derive(Debug, Serialize)]
struct Row<'a> {
    setting: &'static str,
    value: Option<&'a str>,
    origin: String,
}

/// Shows the settings.
///
/// # Errors
/// They are unusable, or nobody reads.
pub fn run(args: &ConfigArgs, given: &Given) -> Result<(), Failure> {
    match &args.what {
        What::Show(how) => {
            let resolved = given.resolve().map_err(|error| Failure::usage(&error))?;
            if how.json {
                return print(&json(&resolved.shown));
            }
            print(&table(&resolved.shown, how.origin))
        }
        What::Path => {
            let path = given.settings_file();
            print(&path.map_or_else(String::new, |path| format!("{}\n", path.display())))
        }
    }
}

fn json(shown: &[Shown]) -> String {
    let rows = shown.iter().map(|shown| Row {
        setting: shown.setting.key(),
        value: shown.value.as_deref(),
        origin: shown.origin.to_string(),
    });
    let rows: Vec<Row<'_>> = rows.collect();
    let json = serde_json::to_string_pretty(&rows).expect("plain fields become JSON");
    format!("{json}\n")
}

fn table(shown: &[Shown], with_origin: bool) -> String {
    let value = |shown: &Shown| shown.value.clone().unwrap_or_else(|| UNSET.to_owned());
    let widest = |text: &dyn Fn(&Shown) -> String| {
        let widths = shown.iter().map(|shown| text(shown).chars().count());
        widths.max().unwrap_or(0)
    };
    let keys = widest(&|shown| shown.setting.to_string());
    let values = widest(&value);
    let mut text = String::new();
    for row in shown {
        let origin = if with_origin {
            row.origin.to_string()
        } else {
            String::new()
        };
        let (key, value) = (row.setting.key(), value(row));
        let line = format!("{key:<keys$}  {value:<values$}  {origin}");
        writeln!(text, "{}", line.trim_end()).expect("writing to a String cannot fail");
    }
    text
}
