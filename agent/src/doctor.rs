//! `ollama-agent doctor`: what keeps this machine from serving, layer by layer. Changes nothing.

mod home;
mod runtime;
mod service;
mod standing;

use std::time::Duration;

use chrono::Utc;
use ollama_coordinator_common::doctor::{Check, CheckId, Report, connection};
use ollama_coordinator_common::http::HttpTimeouts;
use ollama_coordinator_common::protocol::system::Gpu;

use crate::config::Config;
use crate::local::Meant;
use crate::system;

pub use self::home::{Access, Home};

/// For each layer on the way to the coordinator.
pub(crate) const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(3),
    answer: Duration::from_secs(5),
};

/// Looks at all that has to work; `settings` says how the values were found, and `home` what the agent
/// that is `meant` keeps.
pub async fn examine(config: &Config, settings: Check, (meant, home): (&Meant, Home)) -> Report {
    let coordinator = coordinator(config, &home);
    let machine = async { (service::look(meant.service.as_ref()).await, gpu().await) };
    let runtime = runtime(config, (meant, &home));
    let (coordinator, runtime, (service, gpu)) = tokio::join!(coordinator, runtime, machine);

    let mut checks = vec![settings];
    checks.extend(home.checks);
    checks.push(service);
    checks.extend(coordinator);
    checks.extend(runtime);
    checks.push(gpu);
    Report::new(checks, Utc::now())
}

async fn coordinator(config: &Config, home: &Home) -> Vec<Check> {
    let Some(server) = &config.coordinator else {
        return Vec::new();
    };
    let connection = connection::look(server, &config.dial, TIMEOUTS).await;
    let mut checks = connection.checks;
    if let Some(client) = connection.coordinator {
        checks.extend(standing::look(client, config, home).await);
    }
    checks
}

async fn runtime(config: &Config, (meant, home): (&Meant, &Home)) -> Vec<Check> {
    if home.is_runtime_known {
        return runtime::look(config).await;
    }
    let found = "the agent that runs does not say which runtime it has";
    let check = Check::unknown(CheckId::Runtime, found);
    vec![check.with_remedy(meant.command("doctor --runtime 127.0.0.1:11434"))]
}

async fn gpu() -> Check {
    let id = CheckId::Gpu;
    match system::describe().await.gpus.as_deref() {
        None => Check::unknown(
            id,
            "nobody can be asked: nvidia-smi is not found and the system lists no cards",
        ),
        Some([]) => Check::ok(id, "none found; models run on the processor, which is slow"),
        Some(gpus) => {
            let gpus = gpus.iter().map(described).collect::<Vec<_>>();
            Check::ok(id, gpus.join(", "))
        }
    }
}

fn described(gpu: &Gpu) -> String {
    const GIB: u64 = 1 << 30;
    let memory = gpu
        .memory_bytes
        .map(|bytes| format!(" {} GiB", (bytes + GIB / 2) / GIB));
    let driver = gpu
        .driver
        .as_deref()
        .map(|driver| format!(" (driver {driver})"));
    let (memory, driver) = (memory.unwrap_or_default(), driver.unwrap_or_default());
    format!("{}{memory}{driver}", gpu.name)
}
