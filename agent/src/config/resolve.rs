//! Which of flag, environment, settings file and default wins, and that it did.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::logging::LogFormat;

use super::path::{default_settings_file, default_state_dir, environment};
use super::{
    Args, Config, DEFAULT_PANEL_PORT, DEFAULT_REGISTER_RETRY, Link, Panel, Setting, Timing,
    machine_name, runtime_url,
};
use crate::platform;
use crate::settings::{SettingsError, SettingsFile};

const OLLAMA_HOST: &str = "OLLAMA_HOST";

/// What flags and environment say. The settings file is read each time this is resolved.
#[derive(Debug, Clone)]
pub struct Given {
    args: Args,
    said_by: BTreeMap<Setting, Origin>,
    /// Named by flag or environment.
    named_file: Option<PathBuf>,
    default_file: Option<PathBuf>,
}

/// What the process is to do, and why.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What it is to do.
    pub config: Config,
    /// Every setting with who said it, in the order of the help text.
    pub shown: Vec<Shown>,
}

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Which one.
    pub setting: Setting,
    /// What it is; `None`: not set, and there is no default that could be told.
    pub value: Option<String>,
    /// Who said it.
    pub origin: Origin,
}

/// Who said what a setting is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag of the command line.
    Flag,
    /// This environment variable.
    Environment(String),
    /// The settings file.
    File,
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File => f.write_str("file"),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Given {
    pub(super) fn new(
        args: Args,
        said_by: BTreeMap<Setting, Origin>,
        file: Option<PathBuf>,
    ) -> Self {
        Self {
            args,
            said_by,
            named_file: file,
            default_file: default_settings_file(),
        }
    }

    /// Returns where the settings file is, whether it exists or not; `None` without a home.
    pub fn settings_file(&self) -> Option<&Path> {
        self.named_file.as_deref().or(self.default_file.as_deref())
    }

    /// Returns flags that tell another process, started anywhere, what flags and environment tell
    /// this one.
    ///
    /// # Errors
    /// A path is relative and there is no directory.
    pub fn flags(&self) -> io::Result<Vec<String>> {
        let mut args = self.args.clone();
        args.state_dir = args.state_dir.map(std::path::absolute).transpose()?;
        let file = self
            .named_file
            .as_deref()
            .map(std::path::absolute)
            .transpose()?;
        let file = file.map(|file| format!("--config={}", file.display()));
        let said = Setting::ALL.into_iter().filter_map(|setting| {
            let value = args.text(setting)?;
            Some(format!("{}={value}", setting.flag()))
        });
        Ok(file.into_iter().chain(said).collect())
    }

    /// Returns who fixed a setting before the settings file is asked.
    pub fn fixed_by(&self, setting: Setting) -> Option<&Origin> {
        self.said_by.get(&setting)
    }

    /// Reads the settings file and decides.
    ///
    /// # Errors
    /// The file or a variable is unusable.
    pub fn resolve(&self) -> Result<Resolved, ConfigError> {
        match self.settings_file() {
            Some(path) => self.resolve_with(SettingsFile::open(path)?.args()),
            None => self.without_file(),
        }
    }

    /// Decides as if there were no settings file.
    ///
    /// # Errors
    /// A variable is unusable.
    pub fn without_file(&self) -> Result<Resolved, ConfigError> {
        self.resolve_with(&Args::default())
    }

    /// Decides with what a settings file says.
    ///
    /// # Errors
    /// A variable is unusable.
    pub fn resolve_with(&self, file: &Args) -> Result<Resolved, ConfigError> {
        let args = self.args.clone().or(file.clone());
        let mut origins = self.origins(file);
        let (runtime, ollama_host) = match args.runtime {
            Some(runtime) => (runtime, None),
            None => ollamas_own(&mut origins)?,
        };
        let said_by = origins.remove(&Setting::MachineName);
        let (machine_name, said_by) = choose_name(args.machine_name, said_by);
        origins.insert(Setting::MachineName, said_by);
        let state_dir = args.state_dir.or_else(default_state_dir);
        let config = Config {
            coordinator: args.coordinator,
            runtime,
            ollama_host,
            ollama_slots: environment("OLLAMA_NUM_PARALLEL").and_then(|slots| slots.parse().ok()),
            capacity: args.capacity,
            link: match args.advertise {
                Some(_) => Link::Direct {
                    advertised: args.advertise,
                },
                None => Link::Tunnel,
            },
            dial: Dial::from_environment(),
            state_dir: state_dir.ok_or(ConfigError::NoHome)?,
            machine_name,
            register_retry_interval: args
                .register_retry_interval
                .unwrap_or(DEFAULT_REGISTER_RETRY),
            register_max_attempts: args.register_max_attempts.unwrap_or(0),
            heartbeat_interval: args.heartbeat_interval,
            log_format: args.log_format.unwrap_or(LogFormat::Human),
            panel: args.panel.unwrap_or(Panel::Port(DEFAULT_PANEL_PORT)),
            timing: Timing::default(),
        };
        let shown = shown(&config, &mut origins);
        Ok(Resolved { config, shown })
    }

    fn origins(&self, file: &Args) -> BTreeMap<Setting, Origin> {
        let in_file = Setting::ALL
            .into_iter()
            .filter(|setting| file.text(*setting).is_some());
        let mut origins: BTreeMap<_, _> = in_file.map(|setting| (setting, Origin::File)).collect();
        origins.extend(self.said_by.clone());
        origins
    }
}

/// Finds the runtime where Ollama's own variable says, in this environment or in Ollama's service,
/// else where Ollama is as installed; and returns what the variable said.
fn ollamas_own(
    origins: &mut BTreeMap<Setting, Origin>,
) -> Result<(BaseUrl, Option<String>), ConfigError> {
    let mut told_by = |origin: &str| {
        origins.insert(Setting::Runtime, Origin::Environment(origin.to_owned()));
    };
    if let Some(said) = environment(OLLAMA_HOST) {
        told_by(OLLAMA_HOST);
        return Ok((runtime_url::from_ollama_host(Some(&said))?, Some(said)));
    }
    // A service that this agent cannot make sense of is Ollama's own affair.
    let service = platform::ollama_service_host();
    if let Some(said) = service
        && let Ok(runtime) = runtime_url::from_ollama_host(Some(&said))
    {
        told_by("OLLAMA_HOST of ollama.service");
        return Ok((runtime, Some(format!("{said} in ollama.service"))));
    }
    Ok((runtime_url::from_ollama_host(None)?, None))
}

fn choose_name(said: Option<String>, said_by: Option<Origin>) -> (String, Origin) {
    let variable = |name: &str| (Origin::Environment(name.to_owned()), environment(name));
    machine_name::choose([
        (said_by.unwrap_or(Origin::Default), said),
        variable("OLLAMA_MACHINE_NAME"),
        variable("HOSTNAME"),
        (Origin::Default, sysinfo::System::host_name().ok()),
    ])
}

fn shown(config: &Config, origins: &mut BTreeMap<Setting, Origin>) -> Vec<Shown> {
    let args = config.settings();
    let show = |setting| Shown {
        setting,
        value: args.text(setting),
        origin: origins.remove(&setting).unwrap_or(Origin::Default),
    };
    Setting::ALL.into_iter().map(show).collect()
}

impl Resolved {
    /// Returns who said what a setting is.
    pub fn origin(&self, setting: Setting) -> &Origin {
        let shown = self.shown.iter().find(|shown| shown.setting == setting);
        shown.map_or(&Origin::Default, |shown| &shown.origin)
    }

    /// Returns whether somebody asked for the panel for this very start.
    pub fn panel_is_asked_for(&self) -> bool {
        let said = match self.origin(Setting::Panel) {
            Origin::Flag | Origin::Environment(_) => true,
            Origin::File | Origin::Default => false,
        };
        said && self.config.panel != Panel::Off
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag or variable is unusable.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// The settings file is unusable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Ollama's own variable is unusable.
    #[error(transparent)]
    OllamaHost(#[from] runtime_url::InvalidOllamaHost),
    /// There is no place for the state.
    #[error("the home directory is unknown; set --state-dir")]
    NoHome,
}
