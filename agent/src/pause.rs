//! Whether this machine is shared: a pause, its end, and the file that keeps it over a restart.
//!
//! The end is a moment of the wall clock, because people name it so and machines sleep meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ollama_coordinator_common::atomic_file;
use ollama_coordinator_common::protocol::pause::Paused;
use serde::{Deserialize, Serialize};

const FILE: &str = "pause.json";
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// The machine takes no requests, because its owner says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// When it ends by itself; `None`: when somebody ends it.
    pub until: Option<SystemTime>,
}

impl Pause {
    /// Makes a pause that begins now.
    ///
    /// # Errors
    /// It would be too short or too long to be meant.
    pub fn lasting(length: Option<Duration>, now: SystemTime) -> Result<Self, PauseError> {
        if length.is_some_and(|length| length.is_zero()) {
            return Err(PauseError::Nothing);
        }
        if length.is_some_and(|length| length > LONGEST) {
            return Err(PauseError::TooLong);
        }
        Ok(Self {
            until: length.map(|length| now + length),
        })
    }

    /// Returns how much of it is left; `None`: it does not end by itself.
    pub fn left(self, now: SystemTime) -> Option<Duration> {
        let left = |until: SystemTime| until.duration_since(now).unwrap_or_default();
        self.until.map(left)
    }

    /// Returns whether it is over.
    pub fn has_ended(self, now: SystemTime) -> bool {
        self.left(now).is_some_and(|left| left.is_zero())
    }

    /// Returns what the coordinator is told.
    pub(crate) fn notice(self, now: SystemTime) -> Paused {
        let left = self.left(now).map(|left| left.as_millis());
        Paused {
            remaining_ms: left.map(|left| u64::try_from(left).unwrap_or(u64::MAX)),
        }
    }

    /// Reads the pause that is kept in `state_dir`, if there is one that still runs. A file that
    /// says nothing readable stands for a pause: nobody is to be shared against their will.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub(crate) fn open(state_dir: &Path, now: SystemTime) -> Result<Option<Self>, PauseError> {
        let path = state_dir.join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PauseError::new("read", path, source)),
        };
        let stored: StoredPause = serde_json::from_slice(&bytes).unwrap_or_default();
        let until = stored.until.as_deref();
        let pause = Self {
            until: until.and_then(|until| humantime::parse_rfc3339(until).ok()),
        };
        Ok(Some(pause).filter(|pause| !pause.has_ended(now)))
    }

    /// Keeps the pause, or that there is none.
    ///
    /// # Errors
    /// The file cannot be written or removed.
    pub(crate) fn keep(pause: Option<Self>, state_dir: &Path) -> Result<(), PauseError> {
        let path = state_dir.join(FILE);
        let Some(Self { until }) = pause else {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(PauseError::new("remove", path, error))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        };
        let stored = StoredPause {
            until: until.map(|until| humantime::format_rfc3339_millis(until).to_string()),
        };
        let json = serde_json::to_vec(&stored).expect("plain fields become JSON");
        atomic_file::write(&path, &json).map_err(|source| PauseError::new("write", path, source))
    }
}

/// The file's contents.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StoredPause {
    until: Option<String>,
}

/// Why there is no pause, or why it goes on.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// It would be over before it began.
    #[error("a pause of no length pauses nothing; to end one, resume")]
    Nothing,
    /// Nobody means a pause of this length.
    #[error("a pause lasts a year at most; without a length it lasts until it is ended")]
    TooLong,
    /// The file that keeps it cannot be used.
    #[error("failed to {verb} {}", .path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl PauseError {
    fn new(verb: &'static str, path: PathBuf, source: io::Error) -> Self {
        Self::File { verb, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn pause_is_found_again_until_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let minute = Duration::from_mins(1);
        let pause = Pause::lasting(Some(minute), NOW).unwrap();

        Pause::keep(Some(pause), dir.path()).unwrap();

        assert_eq!(Pause::open(dir.path(), NOW).unwrap(), Some(pause));
        assert_eq!(Pause::open(dir.path(), NOW + minute).unwrap(), None);
    }

    #[test]
    fn pause_without_an_end_goes_on_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let pause = Pause::lasting(None, NOW).unwrap();
        assert_eq!(Pause::open(dir.path(), NOW).unwrap(), None);

        Pause::keep(Some(pause), dir.path()).unwrap();
        let years_later = NOW + 1_000 * LONGEST;
        assert_eq!(Pause::open(dir.path(), years_later).unwrap(), Some(pause));

        Pause::keep(None, dir.path()).unwrap();
        Pause::keep(None, dir.path()).unwrap();
        assert_eq!(Pause::open(dir.path(), NOW).unwrap(), None);
    }

    #[test]
    fn damaged_file_stands_for_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"unt").unwrap();

        let pause = Pause::open(dir.path(), NOW).unwrap();

        assert_eq!(pause, Some(Pause { until: None }));
    }

    #[test]
    fn coordinator_is_told_what_is_left() {
        let pause = Pause::lasting(Some(Duration::from_secs(90)), NOW).unwrap();

        let notice = pause.notice(NOW + Duration::from_secs(30));

        assert_eq!(notice.remaining_ms, Some(60_000));
        assert_eq!(Pause { until: None }.notice(NOW).remaining_ms, None);
        assert!(Pause::lasting(Some(2 * LONGEST), NOW).is_err());
        assert!(Pause::lasting(Some(Duration::ZERO), NOW).is_err());
    }
}
