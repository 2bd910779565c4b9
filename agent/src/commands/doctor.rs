//! `ollama-agent doctor`: what keeps this machine from serving.

use chrono::Utc;
use clap::Args;
use ollama_coordinator_common::doctor::{Check, CheckId, Report};

use super::{Failure, print};
use crate::config::{self, Given, Origin, Resolved};
use crate::{doctor, error_chain};

/// What to look with.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look as an agent with these settings would
    #[command(flatten)]
    pub(crate) settings: config::Args,

    /// Write JSON for programs
    #[arg(long)]
    json: bool,
}

/// Looks, shows what was found, and returns the exit code.
///
/// # Errors
/// The output cannot be written.
pub async fn run(args: &DoctorArgs, given: &Given) -> Result<u8, Failure> {
    let report = match given.resolve() {
        Ok(resolved) => doctor::examine(&resolved.config, settings(&resolved)).await,
        Err(error) => {
            let check = Check::error(CheckId::Settings, error_chain(&error));
            let check = check.with_remedy("correct it, then look again");
            Report::new(vec![check], Utc::now())
        }
    };
    let text = if args.json {
        report.to_json()
    } else {
        report.to_text()
    };
    print(&text)?;
    Ok(report.exit_code())
}

/// Says which settings somebody has set, and where.
fn settings(resolved: &Resolved) -> Check {
    let id = CheckId::Settings;
    if resolved.config.coordinator.is_none() {
        return Check::error(
            id,
            "no coordinator is given, so there is nobody to register with",
        )
        .with_remedy("ollama-agent --coordinator http://192.168.1.10:11400");
    }
    let set = resolved
        .shown
        .iter()
        .filter(|shown| shown.origin != Origin::Default);
    let set = set.filter_map(|shown| {
        let value = shown.value.as_deref()?;
        Some(format!("{} {value} ({})", shown.setting, shown.origin))
    });
    Check::ok(id, set.collect::<Vec<_>>().join(", "))
}
