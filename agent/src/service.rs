//! The agent as a service: what it says about itself, and what it tells the service manager.

use std::time::Duration;

use ollama_coordinator_common::service::installed::Installed;
use ollama_coordinator_common::service::{Product, Serve, notify};
use ollama_coordinator_common::shutdown::Shutdown;

use crate::config;

const NAME: &str = "ollama-agent";
/// How long a stop may take: goodbye, running requests, tasks.
const STOPS_WITHIN: Duration = Duration::from_secs(35);

/// Returns what the agent is as a service that `serve` runs.
pub const fn product(serve: Serve) -> Product {
    Product {
        name: NAME,
        description: "Ollama Coordinator agent",
        paths: &[("state-dir", ""), ("config", "settings.toml")],
        stops_within: STOPS_WITHIN,
        lacks: config::lacking,
        serve,
    }
}

/// Returns the agent's service, when one is installed for this user or this machine.
pub fn installed() -> Option<Installed> {
    Installed::find(NAME)
}

/// Tells the service manager that the agent is up, whether a coordinator is there or not, and when it
/// is stopping. Never ends by itself.
pub async fn announce(shutdown: Shutdown) {
    notify::ready();
    shutdown.stopping().await;
    notify::stopping();
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::TASKS_GRACE;
    use crate::config::Timing;

    #[test]
    fn a_stop_is_given_as_long_as_it_may_take() {
        let timing = Timing::default();

        assert!(timing.goodbye + timing.drain + 3 * TASKS_GRACE <= STOPS_WITHIN);
    }
}
