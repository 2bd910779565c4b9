//! `ollama-agent doctor`: what keeps this machine from serving.

use chrono::Utc;
use clap::Args;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::doctor::{Check, CheckId, Report};

use super::{Failure, print};
use crate::config::{
    self, Config, DEFAULT_COORDINATOR_PORT, Given, Link, Origin, Resolved, Setting,
};
use crate::doctor::{Access, Home};
use crate::instance::Use;
use crate::local::{Meant, RunningAgent};
use crate::status::view::{LinkView, StatusView};
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
        Ok(resolved) => examine(&resolved).await,
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

async fn examine(resolved: &Resolved) -> Report {
    let meant = Meant::by(resolved);
    let told = match RunningAgent::of(&meant) {
        Ok(mut agent) => agent.status().await.ok(),
        Err(_unasked) => None,
    };
    let mut home = Home::look(&meant).await;
    home.last_error = told.as_ref().and_then(|told| told.last_error.clone());
    let is_untold = told.is_none() && !matches!(home.usage, Use::Free);
    home.is_runtime_known = !is_untold || *resolved.origin(Setting::Runtime) != Origin::Default;
    let config = told.as_ref().map(|told| as_told(resolved, told));
    let config = config.unwrap_or_else(|| resolved.config.clone());
    let settings = match (&config.coordinator, &told) {
        (Some(coordinator), Some(_)) => settings(resolved, Some(coordinator)),
        (Some(_), None) => settings(resolved, None),
        (None, Some(_)) => unconfigured(&meant),
        (None, None) => no_coordinator(&meant, &home),
    };
    doctor::examine(&config, settings, (&meant, home)).await
}

/// Returns the settings of the agent that runs, which may have been told by other flags and files;
/// what was said here wins.
fn as_told(resolved: &Resolved, told: &StatusView) -> Config {
    let mut config = resolved.config.clone();
    let parsed = |url: &str| BaseUrl::parse(url, DEFAULT_COORDINATOR_PORT).ok();
    if config.coordinator.is_none() {
        config.coordinator = told.coordinator.as_deref().and_then(parsed);
    }
    if *resolved.origin(Setting::Runtime) == Origin::Default
        && let Some(runtime) = parsed(&told.runtime.url)
    {
        config.runtime = runtime;
    }
    if *resolved.origin(Setting::Advertise) == Origin::Default {
        config.link = match told.link {
            LinkView::Direct => Link::Direct { advertised: None },
            LinkView::TunnelUp | LinkView::TunnelDown => Link::Tunnel,
        };
    }
    config
}

/// Says which settings somebody has set, and where; of the agent that runs, its coordinator.
fn settings(resolved: &Resolved, told: Option<&BaseUrl>) -> Check {
    let told = told.filter(|_| resolved.config.coordinator.is_none());
    let told = told.map(|told| format!("coordinator {told} (the agent that runs)"));
    let set = resolved.shown.iter();
    let set = set.filter(|shown| shown.origin != Origin::Default);
    let set = set.filter_map(|shown| {
        let value = shown.value.as_deref()?;
        Some(format!("{} {value} ({})", shown.setting, shown.origin))
    });
    let all = told.into_iter().chain(set).collect::<Vec<_>>();
    Check::ok(CheckId::Settings, all.join(", "))
}

/// Says that the agent that runs waits to be told.
fn unconfigured(meant: &Meant) -> Check {
    let found = "no coordinator is given, so there is nobody to register with";
    let remedy = format!("open its settings panel: {}", meant.command("panel"));
    Check::error(CheckId::Settings, found).with_remedy(remedy)
}

/// Says what is missing. An agent that runs or a service has settings of its own, and another agent
/// is not what is missing there.
fn no_coordinator(meant: &Meant, home: &Home) -> Check {
    const EXAMPLE: &str = "--coordinator http://192.168.1.10:11400";
    let id = CheckId::Settings;
    match (home.access, home.usage, &meant.service) {
        (Access::Closed, _, _) => {
            let found = "the service has settings of its own, for administrators only";
            Check::unknown(id, found).with_remedy(meant.command("doctor"))
        }
        (Access::Open, Use::Running { .. }, _) => {
            let found =
                "no coordinator is given here, and the agent that runs does not say its own";
            Check::unknown(id, found).with_remedy(meant.command(&format!("doctor {EXAMPLE}")))
        }
        (Access::Open, Use::Free | Use::Unknown, Some(_)) => {
            let found = "the service has settings of its own, and does not run to tell them";
            Check::unknown(id, found).with_remedy(meant.start())
        }
        (Access::Open, Use::Free | Use::Unknown, None) => {
            let found = "no coordinator is given, so there is nobody to register with";
            Check::error(id, found).with_remedy(format!("ollama-agent {EXAMPLE}"))
        }
    }
}
