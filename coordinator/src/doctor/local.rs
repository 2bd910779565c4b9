//! This machine and the coordinator that runs on it, by hand or as a service.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::doctor::directory::{check_writable, free_bytes};
use ollama_coordinator_common::doctor::{Check, CheckId, Report, connection};
use ollama_coordinator_common::http::{HttpClient, HttpTimeouts};
use ollama_coordinator_common::service::installed::{Activity, Installed, Owner};
use serde::Deserialize;

use super::fleet;
use crate::commands::ask;
use crate::config::storage::default_data_dir;
use crate::storage::json::{Inspection, inspect};

const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(3),
    answer: Duration::from_secs(10),
};
/// For this machine's own addresses.
const GLANCE: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(1),
    answer: Duration::from_secs(2),
};
const MIB: u64 = 1 << 20;
/// Below this nothing can be stored soon.
const LITTLE: u64 = 100 * MIB;
const NOTHING: u64 = MIB;

/// Looks at the data directory, when it is on this machine, and at the coordinator.
pub(crate) async fn examine(server: &BaseUrl, data_dir: Option<PathBuf>) -> Report {
    let service = ask::service().filter(|_| data_dir.is_none() && is_here(server));
    let mut checks = Vec::new();
    if data_dir.is_some() || is_here(server) {
        let meant = service.clone();
        let looked = tokio::task::spawn_blocking(move || stored(data_dir, meant.as_ref())).await;
        checks.extend(looked.expect("looking at files does not panic"));
    }
    let found = connection::look(server, &Dial::default(), TIMEOUTS).await;
    checks.extend(found.checks);
    if let Some(service) = &service {
        let activity = service.activity().await;
        checks.push(served(service, activity, found.coordinator.is_some()));
    }
    if found.coordinator.is_some() {
        let mut client = ask::client(server.clone());
        checks.extend(recovery(&mut client).await);
        checks.push(addresses(&mut client).await);
        checks.push(fleet::look(&mut client).await);
    }
    Report::new(checks, Utc::now())
}

fn is_here(server: &BaseUrl) -> bool {
    let host = server.host().trim_matches(['[', ']']);
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Looks at the directory that was named, else at that of the machine's service, else at the user's.
fn stored(named: Option<PathBuf>, service: Option<&Installed>) -> Vec<Check> {
    let Some(service) = service else {
        return match named.map_or_else(default_data_dir, Ok) {
            Ok(dir) => storage(&dir),
            Err(error) => vec![Check::error(CheckId::Settings, error.to_string())],
        };
    };
    let dir = match &service.owner {
        Owner::User => default_data_dir().ok(),
        Owner::Machine { dir, .. } => Some(dir.clone()),
    };
    let Some(dir) = dir else {
        return Vec::new();
    };
    match dir.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let found = format!(
                "{} is for the service and administrators only",
                dir.display()
            );
            vec![Check::unknown(CheckId::DataDir, found).with_remedy(service.command("doctor"))]
        }
        Ok(_) | Err(_) => storage(&dir),
    }
}

/// Says how the service is; one that does not run is what is wrong only where nobody else serves.
fn served(service: &Installed, activity: Activity, is_answered: bool) -> Check {
    let id = CheckId::Service;
    let entry = &service.entry;
    match (activity, is_answered) {
        (Activity::Running { pid: Some(pid) }, _) => {
            Check::ok(id, format!("runs (process {pid}, {entry})"))
        }
        (Activity::Running { pid: None }, _) => Check::ok(id, format!("runs ({entry})")),
        (Activity::Stopped, false) => {
            Check::error(id, format!("is installed ({entry}) and does not run"))
                .with_remedy(service.command("service start"))
        }
        (Activity::Stopped, true) => Check::warning(
            id,
            format!("is installed ({entry}) and does not run, but a coordinator does"),
        )
        .with_remedy("have only one of the two"),
        (Activity::Unknown, _) => Check::unknown(
            id,
            format!("is installed ({entry}); whether it runs is not known"),
        )
        .with_remedy(service.command("service status")),
    }
}

fn storage(data_dir: &Path) -> Vec<Check> {
    vec![directory(data_dir), registry(data_dir), disk(data_dir)]
}

fn directory(data_dir: &Path) -> Check {
    let (id, shown) = (CheckId::DataDir, data_dir.display());
    match check_writable(data_dir) {
        Ok(()) => Check::ok(id, format!("{shown} can be written")),
        Err(error) => Check::error(id, format!("{shown} cannot be written: {error}")).with_remedy(
            "give the coordinator's user the right to write there, or name another --data-dir",
        ),
    }
}

fn registry(data_dir: &Path) -> Check {
    let id = CheckId::Registry;
    match inspect(data_dir) {
        Ok(Inspection::Missing) => Check::ok(id, "none yet"),
        Ok(Inspection::Whole {
            agents,
            rejected: 0,
        }) => Check::ok(id, format!("agents.json is whole ({agents} known)")),
        Ok(Inspection::Whole { agents, rejected }) => Check::warning(
            id,
            format!("agents.json has {rejected} records that make no sense ({agents} that do)"),
        )
        .with_remedy("nothing has to be done: they are set aside at the next start"),
        Ok(Inspection::Damaged { cause }) => {
            Check::error(id, format!("agents.json is damaged: {cause}")).with_remedy(
                "restore a backup, or start the coordinator: it keeps what is damaged and goes on \
                 from what is whole, agents.json.bak if need be",
            )
        }
        Err(error) => Check::error(id, format!("{:#}", anyhow::Error::from(error)))
            .with_remedy("see \"What happens when a file is bad\" in docs/operations.md"),
    }
}

fn disk(data_dir: &Path) -> Check {
    let id = CheckId::Disk;
    let Some(free) = free_bytes(data_dir) else {
        return Check::unknown(id, "the system does not tell how much room there is");
    };
    let found = format!("{} MiB free", free / MIB);
    match free {
        ..NOTHING => Check::error(id, found).with_remedy("make room on the disk"),
        NOTHING..LITTLE => Check::warning(id, found).with_remedy("make room on the disk"),
        LITTLE.. => Check::ok(id, found),
    }
}

/// Says what the running coordinator says of its storage, when that is not as it should be.
async fn recovery(client: &mut HttpClient) -> Option<Check> {
    #[derive(Deserialize)]
    struct Readiness {
        storage: String,
        registry: String,
        registry_detail: String,
    }

    let id = CheckId::Registry;
    let ready: Readiness = client.get("/readyz").await.ok()?.json().ok()?;
    if ready.storage != "ok" {
        let found = format!("the coordinator cannot store changes: {}", ready.storage);
        let remedy =
            "make the data directory writable and its disk roomy; nothing is lost meanwhile";
        return Some(Check::error(id, found).with_remedy(remedy));
    }
    let is_plain = ["clean", "new", "imported"].contains(&ready.registry.as_str());
    let found = format!("at its start: {}", ready.registry_detail);
    let remedy = "agents that are lost come back by themselves; keep the evidence for a look";
    (!is_plain).then(|| Check::warning(id, found).with_remedy(remedy))
}

/// Tries the addresses under which other machines are to reach the coordinator.
async fn addresses(client: &mut HttpClient) -> Check {
    #[derive(Deserialize)]
    struct About {
        addresses: Vec<String>,
    }

    let id = CheckId::Addresses;
    let about = match client
        .get("/api/about")
        .await
        .and_then(|a| a.json::<About>())
    {
        Ok(about) => about,
        Err(error) => return Check::unknown(id, error.to_string()),
    };
    if about.addresses.is_empty() {
        return Check::warning(
            id,
            "no other machine can reach it: it listens on loopback only",
        )
        .with_remedy("start it without --host 127.0.0.1 and without --dev");
    }
    let mut silent = Vec::new();
    for address in &about.addresses {
        let Ok(url) = BaseUrl::parse(address, client.base().port()) else {
            continue;
        };
        if HttpClient::new(url, GLANCE).get("/healthz").await.is_err() {
            silent.push(address.as_str());
        }
    }
    if silent.is_empty() {
        return Check::ok(id, about.addresses.join(", "));
    }
    let found = format!("does not answer at {}", silent.join(", "));
    let remedy = format!(
        "allow TCP port {} in this machine's firewall",
        client.base().port()
    );
    Check::warning(id, found).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use ollama_coordinator_common::doctor::Answer;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Activity::Running { pid: Some(7) }, false, Answer::Ok, "process 7")]
    #[case(
        Activity::Stopped,
        false,
        Answer::Error,
        "ollama-coordinator service start"
    )]
    #[case(Activity::Stopped, true, Answer::Warning, "only one of the two")]
    #[case(
        Activity::Unknown,
        true,
        Answer::Unknown,
        "ollama-coordinator service status"
    )]
    fn service_is_named_with_what_it_does(
        #[case] activity: Activity,
        #[case] is_answered: bool,
        #[case] answer: Answer,
        #[case] told: &str,
    ) {
        let service = Installed {
            name: ask::NAME,
            owner: Owner::User,
            entry: "/unit".to_owned(),
        };

        let check = served(&service, activity, is_answered);

        assert_eq!(check.answer, answer);
        assert!(check.to_string().contains(told), "{check}");
    }
}
