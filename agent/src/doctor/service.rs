//! Whether the agent starts with the machine or when its owner logs in.

use std::path::PathBuf;

use ollama_coordinator_common::doctor::{Check, CheckId};
use ollama_coordinator_common::service::installed::Installed;

use crate::{autostart, platform};

/// Looks for what starts the agent, whose service may be installed without being started by itself.
pub(super) async fn look(installed: Option<&Installed>) -> Check {
    let looked = tokio::task::spawn_blocking(|| (service(), autostart::is_on())).await;
    let (service, starts_at_login) = looked.expect("looking at files does not panic");
    let id = CheckId::Service;
    match (service, starts_at_login, installed) {
        (Service::Enabled(entry), _, _) => {
            Check::ok(id, format!("starts by itself ({})", entry.display()))
        }
        (_, Some(true), _) => Check::ok(id, "starts when its owner logs in"),
        (Service::NotEnabled, _, Some(service)) => {
            let found = format!("is installed ({}), but not enabled", service.entry);
            Check::warning(id, found).with_remedy(service.enabling())
        }
        (Service::NotEnabled, _, None) => Check::warning(id, "does not start by itself")
            .with_remedy("ollama-agent service install --coordinator URL"),
        (Service::Unknown, _, Some(service)) => {
            Check::ok(id, format!("starts by itself ({})", service.entry))
        }
        (Service::Unknown, _, None) => Check::unknown(id, "cannot be found out on this system"),
    }
}

enum Service {
    Enabled(PathBuf),
    NotEnabled,
    Unknown,
}

fn service() -> Service {
    let entries = platform::service_entries();
    if entries.is_empty() {
        return Service::Unknown;
    }
    let mut entries = entries.into_iter();
    let enabled = entries.find(|entry| entry.symlink_metadata().is_ok());
    enabled.map_or(Service::NotEnabled, Service::Enabled)
}
