//! What the process was asked to do: flags over environment over settings file over defaults.
//!
//! Every value is checked here, by name and with its allowed range, and never read again later;
//! [`Given`] resolves once more when the settings file has changed.

mod args;
mod cli;
mod face;
mod link;
mod machine_name;
mod panel;
mod path;
mod resolve;
mod runtime_url;
mod setting;
mod timing;
mod told;

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::logging::LogFormat;

pub use self::args::Args;
pub use self::cli::{Cli, Invocation, MISSING_COORDINATOR};
pub use self::face::StartedBy;
pub use self::link::{Advertised, Link};
pub use self::panel::{DEFAULT_PANEL_PORT, Panel};
#[cfg(target_os = "linux")]
pub(crate) use self::path::config_home;
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) use self::path::home;
pub use self::resolve::{ConfigError, Given, Origin, Resolved, Shown};
pub use self::setting::{InvalidValue, Setting};
pub use self::timing::Timing;
pub(crate) use self::told::lacking;

/// The port on which a coordinator listens unless told otherwise.
pub const DEFAULT_COORDINATOR_PORT: u16 = 11400;

const DEFAULT_REGISTER_RETRY: Duration = Duration::from_secs(30);

/// What the agent was asked to do. Also made directly by tests and simulations.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to register; `None`: nobody has said it yet, so it is waited for.
    pub coordinator: Option<BaseUrl>,
    /// The runtime that this agent fronts.
    pub runtime: BaseUrl,
    /// What Ollama's own `OLLAMA_HOST` says, when that names the runtime.
    pub ollama_host: Option<String>,
    /// How many requests an Ollama serves at once, from its own `OLLAMA_NUM_PARALLEL`: it does not
    /// tell when asked.
    pub ollama_slots: Option<NonZeroU32>,
    /// How many requests the runtime is to be given at once, whatever it says itself.
    pub capacity: Option<NonZeroU32>,
    /// How the coordinator is to reach the runtime.
    pub link: Link,
    /// How the coordinator is dialled; the runtime is always dialled directly.
    pub dial: Dial,
    /// Where the identity is kept.
    pub state_dir: PathBuf,
    /// What to call this machine.
    pub machine_name: String,
    /// The longest delay between attempts to register.
    pub register_retry_interval: Duration,
    /// After how many failed attempts in a row to register the agent ends; 0: never.
    pub register_max_attempts: u32,
    /// The longest time between two heartbeats, when the coordinator's lease says longer.
    pub heartbeat_interval: Option<Duration>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where the settings panel is; off unless the agent is a process of its own.
    pub panel: Panel,
    /// The delays and limits that are not for the operator to set.
    pub timing: Timing,
}

impl Config {
    /// Resolves the agent that a coordinator runs in its own process for its own machine. The same
    /// environment rules apply, except that the coordinator knows where it is and where to keep
    /// the agent's state, and reaches the runtime by itself. It has no settings file and no panel.
    ///
    /// # Errors
    /// A value in the environment is unusable.
    pub fn for_local_coordinator(
        coordinator: BaseUrl,
        state_dir: PathBuf,
    ) -> Result<Self, ConfigError> {
        let mut words = ["ollama-agent", "--panel", "off", "--coordinator"]
            .map(OsString::from)
            .to_vec();
        words.extend([coordinator.to_string().into(), "--state-dir".into()]);
        words.push(state_dir.into_os_string());
        let resolved = Cli::read(words)?.given.without_file()?;
        let advertised = None;
        Ok(Self {
            link: Link::Direct { advertised },
            dial: Dial::default(),
            ..resolved.config
        })
    }

    /// Returns what it says, as one place could have said it.
    pub fn settings(&self) -> Args {
        Args {
            coordinator: self.coordinator.clone(),
            runtime: Some(self.runtime.clone()),
            advertise: match self.link {
                Link::Direct { advertised } => advertised,
                Link::Tunnel => None,
            },
            state_dir: Some(self.state_dir.clone()),
            machine_name: Some(self.machine_name.clone()),
            capacity: self.capacity,
            register_retry_interval: Some(self.register_retry_interval),
            register_max_attempts: Some(self.register_max_attempts),
            heartbeat_interval: self.heartbeat_interval,
            log_format: Some(self.log_format),
            panel: Some(self.panel),
        }
    }

    /// Makes a configuration with the defaults of every optional setting, without looking at the
    /// environment.
    pub fn new(coordinator: BaseUrl, runtime: BaseUrl, state_dir: PathBuf) -> Self {
        Self {
            coordinator: Some(coordinator),
            runtime,
            ollama_host: None,
            ollama_slots: None,
            capacity: None,
            link: Link::Tunnel,
            dial: Dial::default(),
            state_dir,
            machine_name: "unnamed".to_owned(),
            register_retry_interval: DEFAULT_REGISTER_RETRY,
            register_max_attempts: 0,
            heartbeat_interval: None,
            log_format: LogFormat::Human,
            panel: Panel::Off,
            timing: Timing::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_of_a_coordinator_knows_where_it_is_and_keeps_its_state() {
        let coordinator = BaseUrl::parse("127.0.0.1:4000", 1).unwrap();

        let config = Config::for_local_coordinator(coordinator.clone(), "/data/agent".into());

        let config = config.unwrap();
        assert_eq!(config.coordinator, Some(coordinator));
        assert_eq!(config.state_dir, PathBuf::from("/data/agent"));
        assert_eq!(config.link, Link::Direct { advertised: None });
        assert_eq!(config.panel, Panel::Off);
    }
}
