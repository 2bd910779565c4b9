//! The state directory: whether it can be used, who this agent is, and whether it runs.

use std::path::{Path, PathBuf};

use ollama_coordinator_common::doctor::directory::check_writable;
use ollama_coordinator_common::doctor::{Check, CheckId};
use ollama_coordinator_common::id::AgentId;

use crate::error_chain;
use crate::identity::{Identity, IdentityError};
use crate::instance::{Instance, Use};

/// What the state directory tells.
#[derive(Debug)]
pub struct Home {
    /// Where it is.
    pub state_dir: PathBuf,
    /// Who the agent is, once it has started.
    pub agent_id: Option<AgentId>,
    /// Whether an agent uses it now.
    pub usage: Use,
    /// What was found.
    pub checks: Vec<Check>,
}

impl Home {
    /// Looks at the state directory without changing anything in it.
    pub async fn look(state_dir: &Path) -> Self {
        let state_dir = state_dir.to_owned();
        let looked = tokio::task::spawn_blocking(move || Self::look_now(state_dir)).await;
        looked.expect("looking at a directory does not panic")
    }

    fn look_now(state_dir: PathBuf) -> Self {
        let identity = Identity::read(&state_dir);
        let usage = Instance::look(&state_dir);
        let agent_id = identity.as_ref().ok().and_then(Option::as_ref);
        Self {
            agent_id: agent_id.map(|identity| identity.agent_id),
            checks: vec![
                writable(&state_dir),
                known(&state_dir, &identity),
                running(usage),
            ],
            usage,
            state_dir,
        }
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

fn running(usage: Use) -> Check {
    let id = CheckId::Agent;
    match usage {
        Use::Running { pid: Some(pid) } => Check::ok(id, format!("runs (process {pid})")),
        Use::Running { pid: None } => Check::ok(id, "runs"),
        Use::Free => Check::warning(id, "no agent runs with this state directory")
            .with_remedy("start it: ollama-agent"),
        Use::Unknown => Check::unknown(id, "the lock of the state directory cannot be read"),
    }
}
