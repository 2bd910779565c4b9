//! The service of a binary as it is installed here: for whoever would else look at another instance,
//! or start a second one. Found by its files; the service manager says whether it runs.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::place::{self, Manager, Place, Scope};
use super::plan::Found;
use super::{launchd, perform, systemd, windows};

/// How long the service manager may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A service that is installed on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its name, also that of the binary.
    pub name: &'static str,
    /// Whose it is.
    pub owner: Owner,
    /// What has it started, as it is shown: a file, where there is one.
    pub entry: String,
}

/// Whose service it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The user's who asks, with the user's own directories.
    User,
    /// The machine's.
    Machine {
        /// The user that it runs as.
        account: &'static str,
        /// Where it keeps everything.
        dir: PathBuf,
    },
}

/// Whether a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// It does.
    Running {
        /// Its process, when that is told.
        pid: Option<u32>,
    },
    /// It does not.
    Stopped,
    /// Nobody says.
    Unknown,
}

impl Installed {
    /// Finds the service of a binary: where both are there, the one that `service` means for this
    /// user, so the machine's for root and else the user's own.
    pub fn find(name: &'static str) -> Option<Self> {
        Self::at(&Place::here(PathBuf::new()), name)
    }

    fn at(place: &Place, name: &'static str) -> Option<Self> {
        let (scope, entry) = match place.manager {
            Manager::Systemd | Manager::Launchd => {
                let (scope, file) = place.installed(name)?;
                (scope, file.display().to_string())
            }
            Manager::Windows if perform::is_known_to_windows(name) == Found::Nothing => {
                return None;
            }
            Manager::Windows => (Scope::System, "Windows".to_owned()),
        };
        let owner = match scope {
            Scope::User => Owner::User,
            Scope::System => Owner::Machine {
                account: match place.manager {
                    // A user that systemd makes is called as the unit.
                    Manager::Systemd => name,
                    Manager::Launchd => launchd::USER,
                    Manager::Windows => windows::USER,
                },
                dir: PathBuf::from(place.system_state(name)),
            },
        };
        Some(Self { name, owner, entry })
    }

    /// Returns the words that have the binary do something with its service, or as its owner may.
    pub fn command(&self, words: &str) -> String {
        let command = format!("{} {words}", self.name);
        match self.owner {
            Owner::Machine { .. } if cfg!(windows) => format!("{command} (as administrator)"),
            Owner::Machine { .. } if place::uid() != 0 => format!("sudo {command}"),
            Owner::Machine { .. } | Owner::User => command,
        }
    }

    /// Returns the command that has systemd start it by itself; others do that with every service.
    pub fn enabling(&self) -> String {
        let name = self.name;
        match self.owner {
            Owner::User => format!("systemctl --user enable {name}"),
            Owner::Machine { .. } if place::uid() == 0 => format!("systemctl enable {name}"),
            Owner::Machine { .. } => format!("sudo systemctl enable {name}"),
        }
    }

    /// Asks whether it runs.
    pub async fn activity(&self) -> Activity {
        let manager = Manager::of_this_system();
        let (program, args) = self.question(manager);
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        match timeout(PATIENCE, command.output()).await {
            Ok(Ok(output)) => activity(manager, &String::from_utf8_lossy(&output.stdout)),
            Ok(Err(_)) | Err(_) => Activity::Unknown,
        }
    }

    fn question(&self, manager: Manager) -> (&'static str, Vec<String>) {
        let name = self.name;
        let (program, words) = match (manager, &self.owner) {
            (Manager::Systemd, owner) => {
                let whose = match owner {
                    Owner::User => "--user",
                    Owner::Machine { .. } => "--system",
                };
                let show = format!("{whose} show {name}.service --property=ActiveState,MainPID");
                (systemd::SYSTEMCTL, show)
            }
            (Manager::Launchd, Owner::User) => {
                let target = format!("print gui/{}/{name}", place::uid());
                (launchd::LAUNCHCTL, target)
            }
            (Manager::Launchd, Owner::Machine { .. }) => {
                (launchd::LAUNCHCTL, format!("print system/{name}"))
            }
            (Manager::Windows, _) => (windows::SC, format!("queryex {name}")),
        };
        (program, words.split(' ').map(str::to_owned).collect())
    }
}

/// Reads the service manager's answer.
fn activity(manager: Manager, answer: &str) -> Activity {
    let value = |key: &str| {
        let mut pairs = answer
            .lines()
            .filter_map(|line| line.split_once(['=', ':']));
        let found = pairs.find(|(name, _)| name.trim() == key);
        found.map(|(_, value)| value.trim())
    };
    let pid = |key| value(key)?.parse().ok().filter(|&pid: &u32| pid != 0);
    let (runs, is_known) = match manager {
        Manager::Systemd => (pid("MainPID"), value("ActiveState").is_some()),
        Manager::Launchd => (pid("pid"), value("state").is_some()),
        Manager::Windows => (pid("PID"), value("STATE").is_some()),
    };
    match (runs, is_known) {
        (Some(pid), _) => Activity::Running { pid: Some(pid) },
        (None, true) => Activity::Stopped,
        (None, false) => Activity::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rstest::rstest;

    use super::super::place::tests::place;
    use super::*;

    const RUNNING: Activity = Activity::Running { pid: Some(4711) };

    #[rstest]
    #[case(Manager::Systemd, "MainPID=4711\nActiveState=active\n", RUNNING)]
    #[case(Manager::Systemd, "MainPID=0\nActiveState=failed\n", Activity::Stopped)]
    #[case(
        Manager::Systemd,
        "MainPID=0\nActiveState=activating\n",
        Activity::Stopped
    )]
    #[case(Manager::Systemd, "", Activity::Unknown)]
    #[case(Manager::Launchd, "\tstate = running\n\tpid = 4711\n", RUNNING)]
    #[case(Manager::Launchd, "\tstate = not running\n", Activity::Stopped)]
    #[case(
        Manager::Windows,
        "        STATE              : 4  RUNNING\r\n        PID                : 4711\r\n",
        RUNNING
    )]
    #[case(
        Manager::Windows,
        "        STATE              : 1  STOPPED\r\n        PID                : 0\r\n",
        Activity::Stopped
    )]
    fn answers_of_service_managers_are_read(
        #[case] manager: Manager,
        #[case] answer: &str,
        #[case] expected: Activity,
    ) {
        assert_eq!(activity(manager, answer), expected);
    }

    #[test]
    fn service_of_a_user_is_found_by_its_unit() {
        let home = tempfile::tempdir().unwrap();
        let mut place = place(Manager::Systemd, Scope::User);
        place.user_units = Some(home.path().to_owned());
        let unit = home.path().join("no-such-binary.service");

        assert_eq!(Installed::at(&place, "no-such-binary"), None);

        fs::write(&unit, "[Service]").unwrap();
        let installed = Installed::at(&place, "no-such-binary").unwrap();
        assert_eq!(Path::new(&installed.entry), unit);
        assert_eq!(installed.owner, Owner::User);
        assert_eq!(
            installed.command("service start"),
            "no-such-binary service start"
        );
    }
}
