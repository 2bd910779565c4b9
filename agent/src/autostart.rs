//! Whether the agent starts when this user logs in to a desktop: an entry of the system's own kind.

use std::io;
use std::path::{Path, PathBuf};

use crate::platform::autostart as entry;

/// What to start at login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The program.
    pub program: PathBuf,
    /// Its settings file, when it is not the user's own.
    pub settings_file: Option<PathBuf>,
}

impl Start {
    /// Returns this very program.
    ///
    /// # Errors
    /// The system does not say where it is.
    pub fn this_program(settings_file: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            settings_file: settings_file.map(Path::to_owned),
        })
    }

    /// Returns its words. They ask for the tray, because what starts at login is a service to some
    /// desktops.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![self.program.display().to_string(), "--tray".to_owned()];
        if let Some(file) = &self.settings_file {
            words.push("--config".to_owned());
            words.push(file.display().to_string());
        }
        words
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
