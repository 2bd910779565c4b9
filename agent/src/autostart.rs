//! Whether the agent starts when this user logs in to a desktop: an entry of the system's own kind.
//! Where a service starts it, another start would only be in the way, so it is not offered.

use std::io;
use std::path::PathBuf;

use ollama_coordinator_common::service::installed::Installed;

use crate::config::Given;
use crate::platform::autostart as entry;
use crate::service;

/// What to start at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// What it is told.
    pub flags: Vec<String>,
}

impl Start {
    /// Returns this very program, told by flags what this process was told: its variables may not be
    /// there at a login.
    ///
    /// # Errors
    /// The system does not say where it is.
    pub fn this_program(given: &Given) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            flags: given.flags()?,
        })
    }

    /// Returns its words. They ask for the tray, because what starts at login is a service to some
    /// desktops.
    pub(crate) fn words(&self) -> Vec<String> {
        let own = ["--tray", "--at-login"].map(str::to_owned);
        let program = self.program.display().to_string();
        let words = std::iter::once(program).chain(own);
        words.chain(self.flags.iter().cloned()).collect()
    }
}

/// How it is about a start at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AtLogin {
    /// It starts.
    On,
    /// It does not.
    Off,
    /// This service starts it.
    Service(String),
    /// There is no such thing here.
    Unavailable,
}

impl AtLogin {
    /// Looks how it is.
    pub fn look() -> Self {
        Self::of(is_on(), service::installed())
    }

    fn of(is_on: Option<bool>, service: Option<Installed>) -> Self {
        match (is_on, service) {
            (Some(true), _) => Self::On,
            (Some(false) | None, Some(service)) => Self::Service(service.entry),
            (Some(false), None) => Self::Off,
            (None, None) => Self::Unavailable,
        }
    }

    /// Returns whether it starts, where that is this user's to say.
    pub fn choice(&self) -> Option<bool> {
        match self {
            Self::On => Some(true),
            Self::Off => Some(false),
            Self::Service(_) | Self::Unavailable => None,
        }
    }
}

/// Returns whether it starts at login; `None`: there is no such thing here.
pub fn is_on() -> Option<bool> {
    entry::is_on()
}

/// Has it start at login from now on.
///
/// # Errors
/// The entry cannot be made.
pub fn turn_on(start: &Start) -> io::Result<()> {
    entry::turn_on(start)
}

/// Has it no longer start at login.
///
/// # Errors
/// The entry cannot be removed.
pub fn turn_off() -> io::Result<()> {
    entry::turn_off()
}
