//! One agent process per state directory, by a lock that the system releases with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

const FILE: &str = "agent.lock";
const MAX_PID_BYTES: u64 = 16;

/// Whether this process may use the state directory.
#[derive(Debug)]
pub enum Instance {
    /// It may, as long as the guard lives.
    First(Guard),
    /// Another agent process uses it.
    AlreadyRunning {
        /// That process, when the lock file tells.
        pid: Option<u32>,
    },
}

/// Holds the lock on a state directory.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct Guard {
    _lock: File,
}

impl Instance {
    /// Tries to lock `state_dir`, which must exist. The lock file stays when the lock is released.
    ///
    /// # Errors
    /// The lock file cannot be opened or written.
    pub fn acquire(state_dir: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state_dir.join(FILE))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Self::First(Guard { _lock: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(Self::AlreadyRunning { pid: holder(&file) }),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(MAX_PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_is_refused_until_the_first_is_released() {
        let dir = tempfile::tempdir().unwrap();
        let Instance::First(guard) = Instance::acquire(dir.path()).unwrap() else {
            panic!("nobody else holds the lock");
        };

        let second = Instance::acquire(dir.path()).unwrap();
        assert!(
            matches!(second, Instance::AlreadyRunning { pid } if pid == Some(std::process::id())),
            "{second:?}"
        );

        drop(guard);
        let third = Instance::acquire(dir.path()).unwrap();
        assert!(matches!(third, Instance::First(_)), "{third:?}");
    }
}
