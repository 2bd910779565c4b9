//! One agent process per state directory, by a lock that the system releases with the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

const FILE: &str = "agent.lock";
const MAX_PID_BYTES: u64 = 16;
/// How often a lock that only lookers hold is tried: each of them is gone in microseconds.
const TRIES: u32 = 100;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

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

/// Whether a state directory is used, as others see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// An agent process uses it.
    Running {
        /// That process, when the lock file tells.
        pid: Option<u32>,
    },
    /// Nobody does.
    Free,
    /// It cannot be found out.
    Unknown,
}

/// What trying to lock came to.
enum Lock {
    /// It is this process's.
    Taken,
    /// Another agent has it.
    OfAnother,
    /// Somebody looks whether another agent has it.
    LookedAt,
}

/// Holds the lock on a state directory.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct Guard {
    lock: File,
}

impl Drop for Guard {
    /// A child process that has just been forked shares the file, and would keep it locked.
    fn drop(&mut self) {
        if let Err(error) = self.lock.unlock() {
            tracing::debug!(%error, "The lock on the state directory ends with the process");
        }
    }
}

impl Instance {
    /// Tries to lock `state_dir`, which must exist. The lock file stays when the lock is released.
    ///
    /// # Errors
    /// The lock file cannot be opened or written.
    pub fn acquire(state_dir: &Path) -> io::Result<Self> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a second at most, before anything else runs, and only where a looker hangs"
        )]
        Self::acquire_after(state_dir, || std::thread::sleep(BETWEEN_TRIES))
    }

    /// Tries to lock; while somebody only looks, after a `pause` once more.
    fn acquire_after(state_dir: &Path, mut pause: impl FnMut()) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(state_dir.join(FILE))?;
        for _ in 0..TRIES {
            match try_lock(&file)? {
                Lock::Taken => {
                    file.set_len(0)?;
                    file.rewind()?;
                    writeln!(file, "{}", std::process::id())?;
                    return Ok(Self::First(Guard { lock: file }));
                }
                Lock::OfAnother => break,
                Lock::LookedAt => pause(),
            }
        }
        Ok(Self::AlreadyRunning { pid: holder(&file) })
    }
}

impl Instance {
    /// Looks whether an agent uses `state_dir`. Nothing is made or written there.
    pub fn look(state_dir: &Path) -> Use {
        let file = match File::open(state_dir.join(FILE)) {
            Ok(file) => file,
            Err(error) => return unopened(error.kind()),
        };
        match file.try_lock_shared() {
            Ok(()) => Use::Free,
            Err(TryLockError::WouldBlock) => Use::Running { pid: holder(&file) },
            Err(TryLockError::Error(_)) => Use::Unknown,
        }
    }
}

/// Lookers share their lock; an agent's excludes it.
fn try_lock(file: &File) -> io::Result<Lock> {
    match file.try_lock() {
        Ok(()) => return Ok(Lock::Taken),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    match file.try_lock_shared() {
        Ok(()) => {
            file.unlock()?;
            Ok(Lock::LookedAt)
        }
        Err(TryLockError::WouldBlock) => Ok(Lock::OfAnother),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn unopened(error: io::ErrorKind) -> Use {
    let is_missing = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error);
    if is_missing { Use::Free } else { Use::Unknown }
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
    fn copy_of_the_file_in_a_child_process_does_not_keep_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let Instance::First(guard) = Instance::acquire(dir.path()).unwrap() else {
            panic!("nobody else holds the lock");
        };
        let _copy = guard.lock.try_clone().unwrap();

        drop(guard);

        let again = Instance::acquire(dir.path()).unwrap();
        assert!(matches!(again, Instance::First(_)), "{again:?}");
    }

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

    #[test]
    fn lock_is_taken_as_soon_as_nobody_looks() {
        let dir = tempfile::tempdir().unwrap();
        drop(Instance::acquire(dir.path()).unwrap());
        let mut looker = Some(looking(dir.path()));
        let mut pauses = 0;

        let instance = Instance::acquire_after(dir.path(), || {
            pauses += 1;
            looker = None;
        });

        assert!(matches!(instance, Ok(Instance::First(_))), "{instance:?}");
        assert_eq!(pauses, 1);
    }

    #[test]
    fn looker_that_hangs_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        drop(Instance::acquire(dir.path()).unwrap());
        let _looker = looking(dir.path());
        let mut pauses = 0;

        let instance = Instance::acquire_after(dir.path(), || pauses += 1);

        assert!(
            matches!(instance, Ok(Instance::AlreadyRunning { .. })),
            "{instance:?}"
        );
        assert_eq!(pauses, TRIES);
    }

    #[test]
    fn another_agent_is_told_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let _first = Instance::acquire(dir.path()).unwrap();

        let second = Instance::acquire_after(dir.path(), || panic!("nothing is waited for"));

        assert!(
            matches!(second, Ok(Instance::AlreadyRunning { .. })),
            "{second:?}"
        );
    }

    /// Looks as [`Instance::look`] does, and stays.
    fn looking(state_dir: &Path) -> File {
        let file = File::open(state_dir.join(FILE)).unwrap();
        file.try_lock_shared().unwrap();
        file
    }
}
