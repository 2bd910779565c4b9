//! The state directory: whether it can be used, who this agent is, and whether it runs. That of the
//! machine's service is closed to most; then the service manager says whether the agent runs.

use std::io;
use std::path::{Path, PathBuf};

use ollama_coordinator_common::doctor::directory::check_writable;
use ollama_coordinator_common::doctor::{Check, CheckId};
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::service::installed::{Activity, Installed, Owner};

use crate::error_chain;
use crate::identity::{Identity, IdentityError};
use crate::instance::{Instance, Use};
use crate::local::Meant;

/// What the state directory tells.
#[derive(Debug)]
pub struct Home {
    /// Where it is.
    pub state_dir: PathBuf,
    /// Whether this user may look into it.
    pub access: Access,
    /// Who the agent is, once it has started.
    pub agent_id: Option<AgentId>,
    /// Whether an agent uses it now.
    pub usage: Use,
    /// What the agent that runs says went wrong last with the coordinator, while it is wrong.
    pub last_error: Option<String>,
    /// Whether the runtime that is looked at is the agent's: one that runs may have been told another.
    pub is_runtime_known: bool,
    /// What was found.
    pub checks: Vec<Check>,
}

/// Whether a state directory is this user's to look into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It is.
    Open,
    /// It is for a service and administrators only.
    Closed,
}

impl Home {
    /// Looks at the state directory without changing anything in it.
    pub async fn look(meant: &Meant) -> Self {
        if let Some(service) = &meant.service
            && access(&meant.state_dir) == Access::Closed
        {
            return Self::closed(meant, service, service.activity().await);
        }
        let meant = meant.clone();
        let looked = tokio::task::spawn_blocking(move || Self::open(meant)).await;
        looked.expect("looking at a directory does not panic")
    }

    fn open(meant: Meant) -> Self {
        let state_dir = &meant.state_dir;
        let identity = Identity::read(state_dir);
        let usage = Instance::look(state_dir);
        let agent_id = identity.as_ref().ok().and_then(Option::as_ref);
        Self {
            agent_id: agent_id.map(|identity| identity.agent_id),
            access: Access::Open,
            last_error: None,
            is_runtime_known: true,
            checks: vec![
                writable(state_dir),
                known(state_dir, &identity),
                running(usage, &meant),
            ],
            usage,
            state_dir: meant.state_dir,
        }
    }

    fn closed(meant: &Meant, service: &Installed, activity: Activity) -> Self {
        let usage = match activity {
            Activity::Running { pid } => Use::Running { pid },
            Activity::Stopped => Use::Free,
            Activity::Unknown => Use::Unknown,
        };
        let found = format!(
            "{} is for the service and administrators only",
            meant.state_dir.display()
        );
        let state_dir = Check::unknown(CheckId::StateDir, found);
        Self {
            agent_id: None,
            access: Access::Closed,
            last_error: None,
            is_runtime_known: true,
            checks: vec![
                state_dir.with_remedy(service.command("doctor")),
                running(usage, meant),
            ],
            usage,
            state_dir: meant.state_dir.clone(),
        }
    }
}

fn access(state_dir: &Path) -> Access {
    match state_dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Access::Closed,
        Ok(_) | Err(_) => Access::Open,
    }
}

fn writable(state_dir: &Path) -> Check {
    let (id, shown) = (CheckId::StateDir, state_dir.display());
    match check_writable(state_dir) {
        Ok(()) => Check::ok(id, format!("{shown} can be written")),
        Err(error) => Check::error(id, format!("{shown} cannot be written: {error}"))
            .with_remedy("give this user the right to write there, or name another --state-dir"),
    }
}

fn known(state_dir: &Path, identity: &Result<Option<Identity>, IdentityError>) -> Check {
    let id = CheckId::Identity;
    match identity {
        Ok(Some(identity)) => Check::ok(id, format!("agent {}", identity.agent_id)),
        Ok(None) => Check::ok(id, "none yet; the agent makes one when it first starts"),
        Err(error) => Check::error(id, error_chain(error)).with_remedy(format!(
            "restore agent.json from a backup; else the agent keeps it as evidence and joins as a \
             new one ({})",
            state_dir.display()
        )),
    }
}

fn running(usage: Use, meant: &Meant) -> Check {
    let id = CheckId::Agent;
    let service = meant.service.as_ref();
    let whose = service.map(|service| format!(", {}", described(service)));
    let whose = whose.unwrap_or_default();
    match (usage, service) {
        (Use::Running { pid: Some(pid) }, _) => {
            Check::ok(id, format!("runs (process {pid}){whose}"))
        }
        (Use::Running { pid: None }, _) => Check::ok(id, format!("runs{whose}")),
        (Use::Free, Some(service)) => {
            Check::warning(id, format!("does not run, but is {}", described(service)))
                .with_remedy(format!("start it: {}", meant.start()))
        }
        (Use::Free, None) => Check::warning(id, "no agent runs with this state directory")
            .with_remedy(format!("start it: {}", meant.start())),
        (Use::Unknown, Some(service)) => {
            let found = format!("is {}; whether it runs is not known", described(service));
            Check::unknown(id, found).with_remedy(service.command("service status"))
        }
        (Use::Unknown, None) => {
            Check::unknown(id, "the lock of the state directory cannot be read")
        }
    }
}

/// Says of an agent that a service manager starts it.
fn described(service: &Installed) -> String {
    match &service.owner {
        Owner::User => format!("a service of this user ({})", service.entry),
        Owner::Machine { account, .. } => {
            format!(
                "a service of this machine (user {account}, {})",
                service.entry
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use ollama_coordinator_common::doctor::Answer;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Activity::Running { pid: Some(7) }, Answer::Ok, "runs (process 7), a service of this machine (user ollama-agent")]
    #[case(Activity::Stopped, Answer::Warning, "service start")]
    #[case(Activity::Unknown, Answer::Unknown, "service status")]
    fn service_that_is_closed_is_told_as_its_manager_does(
        #[case] activity: Activity,
        #[case] answer: Answer,
        #[case] told: &str,
    ) {
        let dir = PathBuf::from("/var/lib/ollama-agent");
        let service = Installed {
            name: "ollama-agent",
            owner: Owner::Machine {
                account: "ollama-agent",
                dir: dir.clone(),
            },
            entry: "/usr/lib/systemd/system/ollama-agent.service".to_owned(),
        };
        let meant = Meant {
            state_dir: dir,
            service: Some(service.clone()),
        };

        let home = Home::closed(&meant, &service, activity);

        let agent = home.checks.iter().find(|check| check.id == CheckId::Agent);
        let agent = agent.unwrap();
        assert_eq!(agent.answer, answer);
        assert!(agent.to_string().contains(told), "{agent}");
        assert!(!agent.to_string().ends_with(": ollama-agent"), "{agent}");
    }
}
