//! How the coordinator sees this agent, as it tells anybody.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::doctor::{Answer, Check, CheckId, connection, routable};
use ollama_coordinator_common::http::HttpClient;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView, UnroutableReason};
use tokio::time::Instant;

use super::{Home, TIMEOUTS};
use crate::config::{Config, Link};
use crate::instance::Use;

/// How long a sign of life of somebody else is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// By how much the time last seen moves when there is one: it is derived, and wavers a little.
const SIGN_OF_LIFE: TimeDelta = TimeDelta::milliseconds(500);
const PAUSE: Duration = Duration::from_millis(250);

/// Asks the coordinator for its view of this agent.
pub(super) async fn look(mut client: HttpClient, config: &Config, home: &Home) -> Vec<Check> {
    let view = match home.agent_id {
        Some(id) => ask(&mut client, id).await,
        None => None,
    };
    let is_running = matches!(home.usage, Use::Running { .. });
    let mut checks = Vec::new();
    if let Some(view) = &view {
        let is_elsewhere = !is_running && is_heard_of(&mut client, view).await;
        checks.push(duplicate(view, is_elsewhere, home, Utc::now()));
    }
    let own = view.filter(|_| is_running);
    let server = client.base();
    checks.push(tunnel((server, config), own.as_ref()).await);
    checks.extend(routability(own.as_ref(), home.last_error.as_deref()));
    checks
}

/// Says whether requests come. Where the coordinator does not hear from an agent that runs, that one
/// knows why.
fn routability(own: Option<&AgentView>, last_error: Option<&str>) -> Option<Check> {
    let is_heard_of = own.is_some_and(|view| view.status == AgentStatus::Online);
    match last_error {
        Some(error) if !is_heard_of => {
            let found =
                format!("the coordinator does not hear from the agent, which says: {error}");
            let check = Check::error(CheckId::Routable, found);
            Some(check.with_remedy("mend what it says; it tries again by itself"))
        }
        Some(_) | None => own.map(routable::explain),
    }
}

async fn ask(client: &mut HttpClient, id: AgentId) -> Option<AgentView> {
    let answer = client.get(&format!("/api/agents/{id}")).await.ok()?;
    answer.json().ok()
}

/// Waits for a further sign of life: a lease may run on after its agent was killed.
async fn is_heard_of(client: &mut HttpClient, before: &AgentView) -> bool {
    let until = Instant::now() + PATIENCE;
    while before.status == AgentStatus::Online && Instant::now() < until {
        tokio::time::sleep(PAUSE).await;
        match ask(client, before.id).await {
            Some(view) if view.status == AgentStatus::Offline => return false,
            Some(view) if view.last_seen - before.last_seen >= SIGN_OF_LIFE => return true,
            Some(_) | None => {}
        }
    }
    false
}

fn duplicate(view: &AgentView, is_elsewhere: bool, home: &Home, now: DateTime<Utc>) -> Check {
    let id = CheckId::DuplicateIdentity;
    let AgentView {
        machine_name,
        ip_address,
        ..
    } = view;
    if is_elsewhere {
        let seconds = now
            .signed_duration_since(view.last_seen)
            .num_seconds()
            .max(0);
        return Check::error(
            id,
            format!(
                "another machine uses this identity ({machine_name} at {ip_address}, seen \
                 {seconds} s ago); a copied disk or state directory?"
            ),
        )
        .with_remedy(format!(
            "remove {} on one of the two machines; it joins as a new agent",
            home.state_dir.join("agent.json").display()
        ));
    }
    match view.cloned_from {
        Some(other) => Check::ok(
            id,
            format!("was a copy of agent {other} and has its own now"),
        ),
        None => Check::ok(id, format!("the coordinator knows it as {machine_name}")),
    }
}

/// A tunnel that is up proves that it can be; else it is tried without opening one.
async fn tunnel((server, config): (&BaseUrl, &Config), own: Option<&AgentView>) -> Check {
    let id = CheckId::Tunnel;
    if let Link::Direct { .. } = config.link {
        return Check::ok(
            id,
            "not used: the coordinator dials the runtime (--advertise)",
        );
    }
    let view = own.filter(|view| view.link == LinkKind::Tunnel);
    let is_down = view.is_none_or(|view| {
        matches!(
            view.reason,
            Some(UnroutableReason::NoTunnel | UnroutableReason::Offline)
        )
    });
    if !is_down {
        return Check::ok(id, "is up");
    }
    let tried = connection::tunnel(server, &config.dial, TIMEOUTS).await;
    if view.is_some() && tried.answer == Answer::Ok {
        let found = format!("is not up, though {}", tried.found);
        return Check::warning(id, found).with_remedy("look at the agent's log");
    }
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_that_runs_and_is_not_heard_of_is_asked_why() {
        let refused = routability(None, Some("the coordinator refuses: machine_name")).unwrap();

        assert_eq!(refused.answer, Answer::Error);
        assert!(
            refused
                .found
                .ends_with("says: the coordinator refuses: machine_name")
        );
        assert_eq!(routability(None, None), None);
    }
}
