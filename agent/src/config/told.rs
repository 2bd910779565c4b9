//! What a service will be told, judged before it is installed: as the agent itself would at its start.

use std::path::PathBuf;

use clap::FromArgMatches as _;
use ollama_coordinator_common::service::Told;

use super::path::{default_settings_file, environment};
use super::{Args, Panel, Setting};
use crate::error_chain;
use crate::settings::SettingsFile;

/// Says what keeps a service that is told no more than this from serving.
pub(crate) fn lacking(told: &Told<'_>) -> Option<String> {
    match says_where(told) {
        Ok(true) => None,
        Ok(false) => Some(missing(environment(&Setting::Coordinator.variable()))),
        Err(reason) => Some(reason),
    }
}

/// Returns whether somebody names a coordinator, or has the panel wait for one.
fn says_where(told: &Told<'_>) -> Result<bool, String> {
    let mut said = Args::default();
    for setting in Setting::ALL {
        if let Some(value) = told.variables.get(&setting.variable())
            && !value.is_empty()
        {
            let set = said.set(setting, value);
            set.map_err(|error| format!("{}: {}", setting.variable(), error_chain(&error)))?;
        }
    }
    let flags = Args::from_arg_matches(told.flags).map_err(|error| error.to_string())?;
    let said = flags.or(said);
    let waits = said.panel.is_some_and(|panel| panel != Panel::Off);
    if said.coordinator.is_some() || waits {
        return Ok(true);
    }
    let named = told.flags.get_one::<PathBuf>("settings_file").cloned();
    let file = named.or_else(|| told.paths.get("config").map(PathBuf::from));
    let Some(file) = file.or_else(default_settings_file) else {
        return Ok(false);
    };
    let file = SettingsFile::open(&file).map_err(|error| error_chain(&error))?;
    Ok(file.args().coordinator.is_some())
}

fn missing(here: Option<String>) -> String {
    let url = here.as_deref().unwrap_or("http://192.168.1.10:11400");
    let heard = match here {
        Some(_) => "; OLLAMA_AGENT_COORDINATOR, which is set here, is not passed on to it",
        None => "",
    };
    format!(
        "no coordinator is given, so there is nobody to register with{heard}\n\n  \
         ollama-agent service install --coordinator {url}"
    )
}
