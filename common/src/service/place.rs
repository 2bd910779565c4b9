//! Where a service is installed: by which service manager, for whom, in which files.

use std::env;
use std::path::{Path, PathBuf};

use super::plan::Action;
use super::{Product, ServiceError};

/// Where units are that no package brought.
const SYSTEM_UNITS: &str = "/etc/systemd/system";
/// Where packages put theirs.
const PACKAGED_UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];
const DAEMONS: &str = "/Library/LaunchDaemons";

/// Who starts services here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manager {
    /// Linux.
    Systemd,
    /// macOS.
    Launchd,
    /// Windows.
    Windows,
}

impl Manager {
    pub(super) fn of_this_system() -> Self {
        if cfg!(windows) {
            Self::Windows
        } else if cfg!(target_os = "macos") {
            Self::Launchd
        } else {
            Self::Systemd
        }
    }
}

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The user's who asks.
    User,
    /// The machine's.
    System,
}

/// Where a service is, or is to be.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Who starts it.
    pub(super) manager: Manager,
    /// Whose it is.
    pub(super) scope: Scope,
    /// The program.
    pub(super) program: PathBuf,
    /// The user's home.
    pub(super) home: Option<PathBuf>,
    /// Where the user's units are.
    pub(super) user_units: Option<PathBuf>,
    /// The user's number.
    pub(super) uid: u32,
    /// Where Windows keeps what services store.
    pub(super) program_data: String,
}

impl Place {
    /// Finds the place that was asked for, or the one that goes without saying: the machine's for
    /// root, else the user's, unless only the other has the service.
    pub(super) fn find(
        product: &Product,
        asked: Option<Scope>,
        action: Action,
    ) -> Result<Self, ServiceError> {
        let program = env::current_exe().map_err(ServiceError::ProgramUnknown)?;
        let mut place = Self::here(program);
        place.scope = match asked {
            Some(scope) => scope,
            None if action == Action::Install => place.scope,
            None => place.scope_that_has(product.name),
        };
        match (place.manager, place.scope) {
            (Manager::Windows, Scope::User) => Err(ServiceError::NoUserServices),
            (_, Scope::User) if place.home.is_none() => Err(ServiceError::HomeUnknown),
            (_, Scope::User | Scope::System) => Ok(place),
        }
    }

    /// Returns the place that goes without saying on this system.
    pub(super) fn here(program: PathBuf) -> Self {
        let manager = Manager::of_this_system();
        let named = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let home = env::home_dir().filter(|home| !home.as_os_str().is_empty());
        let config = named("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| Some(home.as_ref()?.join(".config")));
        let uid = uid();
        Self {
            manager,
            scope: if uid == 0 || manager == Manager::Windows {
                Scope::System
            } else {
                Scope::User
            },
            program,
            user_units: config.map(|config| config.join("systemd/user")),
            home,
            uid,
            program_data: named("ProgramData").map_or_else(
                || "C:\\ProgramData".to_owned(),
                |dir| dir.to_string_lossy().into_owned(),
            ),
        }
    }

    fn scope_that_has(&self, name: &str) -> Scope {
        self.installed(name).map_or(self.scope, |(scope, _)| scope)
    }

    /// Returns whose service is installed, and by which file: this place's, else the other one's.
    pub(super) fn installed(&self, name: &str) -> Option<(Scope, PathBuf)> {
        if self.manager == Manager::Windows {
            return None;
        }
        let other = match self.scope {
            Scope::User => Scope::System,
            Scope::System => Scope::User,
        };
        [self.scope, other].into_iter().find_map(|scope| {
            let place = Self {
                scope,
                ..self.clone()
            };
            let file = Some(place.file(name)).filter(|file| file.exists());
            Some((scope, file.or_else(|| place.packaged(name))?))
        })
    }

    /// Returns the file that `install` writes; Windows keeps services in its registry.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        let in_home = |below: &str| self.home.clone().unwrap_or_default().join(below);
        match (self.manager, self.scope) {
            (Manager::Systemd, Scope::System) => {
                Path::new(SYSTEM_UNITS).join(format!("{name}.service"))
            }
            (Manager::Systemd, Scope::User) => {
                let units = self.user_units.clone().unwrap_or_default();
                units.join(format!("{name}.service"))
            }
            (Manager::Launchd, Scope::System) => Path::new(DAEMONS).join(format!("{name}.plist")),
            (Manager::Launchd, Scope::User) => {
                in_home(&format!("Library/LaunchAgents/{name}.plist"))
            }
            (Manager::Windows, _) => PathBuf::new(),
        }
    }

    /// Returns the file of a package that brought the service.
    pub(super) fn packaged(&self, name: &str) -> Option<PathBuf> {
        let is_units = self.manager == Manager::Systemd && self.scope == Scope::System;
        let file = |dir: &&str| Path::new(dir).join(format!("{name}.service"));
        let mut files = PACKAGED_UNITS.iter().filter(|_| is_units).map(file);
        files.find(|file| file.exists())
    }

    /// Returns the settings that are paths with those of the machine's service.
    pub(super) fn system_paths(&self, product: &Product) -> Vec<(&'static str, String)> {
        let dir = self.system_state(product.name);
        let separator = match self.manager {
            Manager::Systemd | Manager::Launchd => '/',
            Manager::Windows => '\\',
        };
        let path = |below: &str| match below {
            "" => dir.clone(),
            below => format!("{dir}{separator}{below}"),
        };
        let paths = product.paths.iter();
        paths
            .map(|&(setting, below)| (setting, path(below)))
            .collect()
    }

    /// Returns where the machine's service keeps what it stores.
    pub(super) fn system_state(&self, name: &str) -> String {
        match self.manager {
            Manager::Systemd => format!("/var/lib/{name}"),
            Manager::Launchd => format!("/Library/Application Support/{name}"),
            Manager::Windows => format!("{}\\{name}", self.program_data),
        }
    }
}

#[cfg(unix)]
pub(super) fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// Nobody asks for it.
#[cfg(windows)]
pub(super) fn uid() -> u32 {
    0
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Makes a place that is the same on every machine.
    pub(in super::super) fn place(manager: Manager, scope: Scope) -> Place {
        let program = match manager {
            Manager::Windows => r"C:\Program Files\Ollama Coordinator\ollama-agent.exe",
            Manager::Systemd | Manager::Launchd => "/usr/local/bin/ollama-agent",
        };
        Place {
            manager,
            scope,
            program: PathBuf::from(program),
            home: Some(PathBuf::from("/home/me")),
            user_units: Some(PathBuf::from("/home/me/.config/systemd/user")),
            uid: 501,
            program_data: r"C:\ProgramData".to_owned(),
        }
    }
}
