//! The settings as they are said in one place: by flags and environment, or in the settings file.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::duration;
use ollama_coordinator_common::logging::LogFormat;

use super::setting::{InvalidValue, Setting};
use super::{Advertised, DEFAULT_COORDINATOR_PORT, Panel, link, machine_name, runtime_url};

const SMALLEST_INTERVAL: Duration = Duration::from_millis(100);
const LARGEST_INTERVAL: Duration = Duration::from_hours(1);
const LARGEST_CAPACITY: u32 = 10_000;

/// What one place says; `None`: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Args {
    /// The coordinator, such as `http://192.168.1.10:11400`; the port may be left out
    #[arg(long, env = "OLLAMA_AGENT_COORDINATOR", value_name = "URL", value_parser = coordinator)]
    pub coordinator: Option<BaseUrl>,

    /// The runtime to register [default: Ollama's own `OLLAMA_HOST`, else `127.0.0.1:11434`]
    #[arg(long, env = "OLLAMA_AGENT_RUNTIME", value_name = "URL", value_parser = runtime_url::parse)]
    pub runtime: Option<BaseUrl>,

    /// Have the coordinator dial the runtime itself, at this IP address, with or without a port
    /// [default: the agent carries the requests]
    #[arg(long, env = "OLLAMA_AGENT_ADVERTISE", value_name = "ADDRESS", value_parser = link::parse)]
    pub advertise: Option<Advertised>,

    /// Where the identity is kept [default: `~/.ollama-coordinator/agent`]
    #[arg(
        long,
        env = "OLLAMA_AGENT_STATE_DIR",
        value_name = "DIR",
        global = true
    )]
    pub state_dir: Option<PathBuf>,

    /// What to call this machine [default: `OLLAMA_MACHINE_NAME`, `HOSTNAME`, else the system's
    /// name]
    #[arg(
        long,
        env = "OLLAMA_AGENT_MACHINE_NAME",
        value_name = "NAME",
        value_parser = machine_name::parse
    )]
    pub machine_name: Option<String>,

    /// How many requests the runtime is given at once, 1 to 10000 [default: what it says]
    #[arg(long, env = "OLLAMA_AGENT_CAPACITY", value_name = "COUNT", value_parser = capacity)]
    pub capacity: Option<NonZeroU32>,

    /// The longest delay between attempts to register; delays are random and grow from 0.5 s up
    /// to this [default: 30s]
    #[arg(
        long,
        env = "OLLAMA_AGENT_REGISTER_RETRY_INTERVAL",
        value_name = "DURATION",
        value_parser = interval
    )]
    pub register_retry_interval: Option<Duration>,

    /// End after this many failed attempts in a row to register; 0: never [default: 0]
    #[arg(long, env = "OLLAMA_AGENT_REGISTER_MAX_ATTEMPTS", value_name = "COUNT")]
    pub register_max_attempts: Option<u32>,

    /// The longest time between two heartbeats; the coordinator may ask for a shorter one
    /// [default: what the coordinator asks for]
    #[arg(
        long,
        env = "OLLAMA_AGENT_HEARTBEAT_INTERVAL",
        value_name = "DURATION",
        value_parser = interval
    )]
    pub heartbeat_interval: Option<Duration>,

    /// How log lines look: `human` or `json` [default: human]
    #[arg(
        long,
        env = "OLLAMA_AGENT_LOG_FORMAT",
        value_name = "FORMAT",
        value_parser = log_format
    )]
    pub log_format: Option<LogFormat>,

    /// Where the settings panel is: a port of 127.0.0.1, or `off`; when the port is taken, any free
    /// one [default: 127.0.0.1:11401]
    #[arg(long, env = "OLLAMA_AGENT_PANEL", value_name = "ADDRESS")]
    pub panel: Option<Panel>,
}

impl Args {
    /// Returns what this says, else what `other` says.
    #[must_use]
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            coordinator: self.coordinator.or(other.coordinator),
            runtime: self.runtime.or(other.runtime),
            advertise: self.advertise.or(other.advertise),
            state_dir: self.state_dir.or(other.state_dir),
            machine_name: self.machine_name.or(other.machine_name),
            capacity: self.capacity.or(other.capacity),
            register_retry_interval: self
                .register_retry_interval
                .or(other.register_retry_interval),
            register_max_attempts: self.register_max_attempts.or(other.register_max_attempts),
            heartbeat_interval: self.heartbeat_interval.or(other.heartbeat_interval),
            log_format: self.log_format.or(other.log_format),
            panel: self.panel.or(other.panel),
        }
    }

    /// Reads one setting as its flag would be read.
    ///
    /// # Errors
    /// Says what is allowed.
    pub(crate) fn set(&mut self, setting: Setting, text: &str) -> Result<(), InvalidValue> {
        match setting {
            Setting::Coordinator => self.coordinator = Some(read(coordinator(text))?),
            Setting::Runtime => self.runtime = Some(read(runtime_url::parse(text))?),
            Setting::Advertise => self.advertise = Some(read(link::parse(text))?),
            Setting::StateDir => self.state_dir = Some(PathBuf::from(text)),
            Setting::MachineName => self.machine_name = Some(read(machine_name::parse(text))?),
            Setting::Capacity => self.capacity = Some(read(capacity(text))?),
            Setting::RegisterRetryInterval => {
                self.register_retry_interval = Some(read(interval(text))?);
            }
            Setting::RegisterMaxAttempts => self.register_max_attempts = Some(read(text.parse())?),
            Setting::HeartbeatInterval => self.heartbeat_interval = Some(read(interval(text))?),
            Setting::LogFormat => self.log_format = Some(read(log_format(text))?),
            Setting::Panel => self.panel = Some(read(text.parse())?),
        }
        Ok(())
    }

    /// Returns the settings that `other` says differently.
    pub(crate) fn differences(&self, other: &Self) -> Vec<Setting> {
        let mut settings = Setting::ALL.to_vec();
        settings.retain(|setting| self.text(*setting) != other.text(*setting));
        settings
    }

    /// Returns one setting as it may be written in the settings file.
    pub(crate) fn text(&self, setting: Setting) -> Option<String> {
        match setting {
            Setting::Coordinator => self.coordinator.as_ref().map(ToString::to_string),
            Setting::Runtime => self.runtime.as_ref().map(ToString::to_string),
            Setting::Advertise => self.advertise.map(|advertised| advertised.to_string()),
            Setting::StateDir => self.state_dir.as_ref().map(|dir| dir.display().to_string()),
            Setting::MachineName => self.machine_name.clone(),
            Setting::Capacity => self.capacity.map(|capacity| capacity.to_string()),
            Setting::RegisterRetryInterval => self.register_retry_interval.map(shown),
            Setting::RegisterMaxAttempts => self.register_max_attempts.map(|most| most.to_string()),
            Setting::HeartbeatInterval => self.heartbeat_interval.map(shown),
            Setting::LogFormat => self.log_format.map(|format| match format {
                LogFormat::Human => "human".to_owned(),
                LogFormat::Json => "json".to_owned(),
            }),
            Setting::Panel => self.panel.map(|panel| panel.to_string()),
        }
    }
}

fn read<T, E: std::fmt::Display>(parsed: Result<T, E>) -> Result<T, InvalidValue> {
    parsed.map_err(InvalidValue::new)
}

fn shown(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

fn coordinator(text: &str) -> Result<BaseUrl, ollama_coordinator_common::base_url::InvalidBaseUrl> {
    BaseUrl::parse(text.trim(), DEFAULT_COORDINATOR_PORT)
}

fn capacity(text: &str) -> Result<NonZeroU32, InvalidCapacity> {
    let capacity: NonZeroU32 = text
        .trim()
        .parse()
        .map_err(|_not_a_count| InvalidCapacity)?;
    if capacity.get() <= LARGEST_CAPACITY {
        Ok(capacity)
    } else {
        Err(InvalidCapacity)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the allowed range is 1 to 10000")]
struct InvalidCapacity;

fn interval(text: &str) -> Result<Duration, InvalidInterval> {
    let interval = duration::parse(text)?;
    if (SMALLEST_INTERVAL..=LARGEST_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        Err(InvalidInterval::OutOfRange)
    }
}

#[derive(Debug, thiserror::Error)]
enum InvalidInterval {
    #[error("the allowed range is 100ms to 1h")]
    OutOfRange,
    #[error("{0} (from 100ms to 1h)")]
    NotADuration(#[from] duration::InvalidDuration),
}

fn log_format(text: &str) -> Result<LogFormat, InvalidLogFormat> {
    match text {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        _ => Err(InvalidLogFormat),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("allowed are `human` and `json`")]
struct InvalidLogFormat;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("0")]
    #[case("-1")]
    #[case("-5s")]
    #[case("NaN")]
    #[case("inf")]
    #[case("99ms")]
    #[case("61m")]
    #[case("1e300")]
    #[case("soon")]
    #[case("")]
    fn unusable_intervals_are_refused_with_the_allowed_range(#[case] text: &str) {
        let error = interval(text).unwrap_err().to_string();

        assert!(error.contains("100ms to 1h"), "{error}");
    }

    proptest! {
        #[test]
        fn accepted_intervals_are_in_range(text in "-?[0-9]{1,12}(\\.[0-9]{1,3})?(ms|s|m|h|)") {
            if let Ok(interval) = interval(&text) {
                prop_assert!((SMALLEST_INTERVAL..=LARGEST_INTERVAL).contains(&interval));
            }
        }
    }

    #[rstest]
    #[case(Setting::Coordinator, "http://gpu-hub:11400")]
    #[case(Setting::Runtime, "http://127.0.0.1:8080")]
    #[case(Setting::Advertise, "192.168.1.21:11434")]
    #[case(Setting::Advertise, "fd00::21")]
    #[case(Setting::StateDir, "/var/lib/ollama-agent")]
    #[case(Setting::MachineName, "gpu-02")]
    #[case(Setting::Capacity, "4")]
    #[case(Setting::RegisterRetryInterval, "2m")]
    #[case(Setting::RegisterMaxAttempts, "3")]
    #[case(Setting::HeartbeatInterval, "500ms")]
    #[case(Setting::LogFormat, "json")]
    #[case(Setting::Panel, "off")]
    fn what_is_written_is_what_is_read(#[case] setting: Setting, #[case] text: &str) {
        let mut args = Args::default();

        args.set(setting, text).unwrap();

        assert_eq!(args.text(setting).as_deref(), Some(text));
        assert_eq!(args.clone().or(Args::default()), args);
        assert_eq!(Args::default().or(args.clone()), args);
    }
}
