//! The settings that flags, environment and settings file share, by one name each.

use std::fmt;

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// Where to register.
    Coordinator,
    /// The runtime.
    Runtime,
    /// Where the coordinator dials the runtime itself.
    Advertise,
    /// Where the identity is kept.
    StateDir,
    /// What the machine is called.
    MachineName,
    /// How many requests at once.
    Capacity,
    /// The longest delay between attempts to register.
    RegisterRetryInterval,
    /// How many attempts to register.
    RegisterMaxAttempts,
    /// The longest time between heartbeats.
    HeartbeatInterval,
    /// How log lines look.
    LogFormat,
    /// Where the settings panel is.
    Panel,
}

impl Setting {
    /// All of them, in the order of the help text.
    pub const ALL: [Self; 11] = [
        Self::Coordinator,
        Self::Runtime,
        Self::Advertise,
        Self::StateDir,
        Self::MachineName,
        Self::Capacity,
        Self::RegisterRetryInterval,
        Self::RegisterMaxAttempts,
        Self::HeartbeatInterval,
        Self::LogFormat,
        Self::Panel,
    ];

    /// Returns its name in the settings file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Runtime => "runtime",
            Self::Advertise => "advertise",
            Self::StateDir => "state_dir",
            Self::MachineName => "machine_name",
            Self::Capacity => "capacity",
            Self::RegisterRetryInterval => "register_retry_interval",
            Self::RegisterMaxAttempts => "register_max_attempts",
            Self::HeartbeatInterval => "heartbeat_interval",
            Self::LogFormat => "log_format",
            Self::Panel => "panel",
        }
    }

    /// Returns the setting of this name.
    pub fn of_key(key: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|setting| setting.key() == key)
    }

    /// Returns whether it stays as it is until the process starts anew.
    pub(crate) fn needs_a_start(self) -> bool {
        match self {
            Self::StateDir | Self::LogFormat | Self::Panel => true,
            Self::Coordinator
            | Self::Runtime
            | Self::Advertise
            | Self::MachineName
            | Self::Capacity
            | Self::RegisterRetryInterval
            | Self::RegisterMaxAttempts
            | Self::HeartbeatInterval => false,
        }
    }

    /// Returns its flag.
    pub fn flag(self) -> String {
        format!("--{}", self.key().replace('_', "-"))
    }

    /// Returns its environment variable.
    pub fn variable(self) -> String {
        format!("OLLAMA_AGENT_{}", self.key().to_ascii_uppercase())
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

/// A text that a setting cannot be, with what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    /// Takes over what a parser says.
    pub(super) fn new(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}
