//! Speaks for this process to the coordinator.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::pause::Paused;
use ollama_coordinator_common::protocol::register::{LeaseTerms, RegisterRequest};
use ollama_coordinator_common::protocol::runtime::{RuntimeKind, RuntimeReport};
use ollama_coordinator_common::protocol::system::{Metrics, SystemInfo};
use ollama_coordinator_common::protocol::view::{AgentView, UnroutableReason};
use ollama_coordinator_common::secret::AgentSecret;
use tokio::sync::watch;

use super::ledger::Ledger;
use super::state::Coordinator;
use crate::config::{Advertised, Config, Link};
use crate::coordinator::{CoordinatorClient, CoordinatorError};
use crate::identity::Identity;
use crate::system;

/// One process's side of the talk with the coordinator.
#[derive(Debug)]
pub(super) struct Conversation {
    client: CoordinatorClient,
    identity: Identity,
    state_dir: PathBuf,
    machine_name: String,
    runtime: BaseUrl,
    link: Link,
    is_proxied: bool,
    register_timeout: Duration,
    system_info: Option<SystemInfo>,
    local_ip: Option<IpAddr>,
    ledger: Ledger,
}

/// What a heartbeat may say.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The runtime as last seen; said when it is news.
    pub(super) report: Option<RuntimeReport>,
    /// The machine's load, when there is a new sample.
    pub(super) metrics: Option<Metrics>,
    /// Whether the machine takes no requests.
    pub(super) paused: Option<Paused>,
}

/// What a heartbeat came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// The lease is renewed.
    Renewed {
        terms: LeaseTerms,
        coordinator: Coordinator,
        unroutable: Option<UnroutableReason>,
    },
    /// Nothing was sent: this machine must register its new address.
    AddressChanged,
}

impl Conversation {
    pub(super) fn new(config: &Config, coordinator: &BaseUrl, identity: Identity) -> Self {
        let (coordinator, dial) = (coordinator.clone(), config.dial.clone());
        Self {
            is_proxied: dial.proxy_of(&coordinator).is_some(),
            client: CoordinatorClient::new(coordinator, dial, config.timing.connect),
            identity,
            state_dir: config.state_dir.clone(),
            machine_name: config.machine_name.clone(),
            runtime: config.runtime.clone(),
            link: config.link,
            register_timeout: config.timing.register,
            system_info: None,
            local_ip: None,
            ledger: Ledger::new(SessionId::new()),
        }
    }

    pub(super) fn agent_id(&self) -> AgentId {
        self.identity.agent_id
    }

    /// Returns who talks: the id, what proves it, and the session.
    pub(super) fn speaker(&self) -> (AgentId, &AgentSecret, SessionId) {
        (
            self.identity.agent_id,
            &self.identity.secret,
            self.ledger.session(),
        )
    }

    /// Returns how many seconds the coordinator's clock is ahead, as it said last.
    pub(super) fn clock_ahead(&self) -> Option<i64> {
        self.client.clock_ahead()
    }

    pub(super) fn disconnect(&mut self) {
        self.client.disconnect();
    }

    /// Finds out what registrations will say of the machine.
    pub(super) async fn describe_machine(&mut self) {
        self.system_info = Some(system::describe().await);
    }

    pub(super) async fn register(
        &mut self,
        report: Option<RuntimeReport>,
        paused: Option<Paused>,
    ) -> Result<LeaseTerms, CoordinatorError> {
        let local_ip = self.client.local_ip().await?;
        let (ip_address, port) = self.endpoint(local_ip);
        let is_ollama = |report: &&RuntimeReport| report.kind == RuntimeKind::Ollama;
        let request = RegisterRequest {
            machine_name: self.machine_name.clone(),
            port,
            ollama_version: report
                .as_ref()
                .filter(is_ollama)
                .and_then(|r| r.version.clone()),
            ip_address,
            link: self.link.kind(),
            agent_id: Some(self.identity.agent_id),
            session: Some(self.ledger.session()),
            epoch: self.ledger.epoch(),
            cloned_from: self.identity.cloned_from,
            system_info: self.system_info.clone(),
            runtime: report.clone(),
            paused,
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        };
        let secret = &self.identity.secret;
        let granted = self
            .client
            .register(secret, &request, self.register_timeout)
            .await?;
        self.local_ip = Some(local_ip);
        let instance = granted.coordinator.instance_id;
        self.ledger.granted(granted.epoch, instance, report);
        tracing::debug!(epoch = granted.epoch, lease = ?granted.lease, "Registration was accepted");
        Ok(granted.lease)
    }

    /// Returns where a registration says that the runtime is.
    fn endpoint(&self, local_ip: IpAddr) -> (Option<IpAddr>, u16) {
        let port = self.runtime.port();
        match self.link {
            Link::Direct {
                advertised: Some(Advertised { ip, port: other }),
            } => (Some(ip), other.unwrap_or(port)),
            Link::Direct { advertised: None } => (Some(reached_at(&self.runtime, local_ip)), port),
            // The address towards a proxy says nothing of this machine.
            Link::Tunnel => ((!self.is_proxied).then_some(local_ip), port),
        }
    }

    pub(super) async fn heartbeat(
        &mut self,
        news: News,
        timeout: Duration,
    ) -> Result<Beat, CoordinatorError> {
        let local_ip = self.client.local_ip().await?;
        if self.local_ip != Some(local_ip) {
            return Ok(Beat::AddressChanged);
        }
        let request = HeartbeatRequest {
            paused: news.paused,
            metrics: news.metrics,
            ..self.ledger.heartbeat(news.report)
        };
        let credentials = (self.identity.agent_id, &self.identity.secret);
        let renewed = self
            .client
            .heartbeat(credentials, &request, timeout)
            .await?;
        let instance = renewed.coordinator.instance_id;
        Ok(Beat::Renewed {
            terms: renewed.lease,
            coordinator: self
                .ledger
                .renewed(renewed.epoch, instance, request.runtime),
            unroutable: renewed.reason,
        })
    }

    /// Resolves when the runtime's report has news that should not wait for the next heartbeat.
    pub(super) async fn news(&self, runtime: &mut watch::Receiver<Option<RuntimeReport>>) {
        let is_news = |report: &Option<RuntimeReport>| {
            report
                .as_ref()
                .is_some_and(|report| self.ledger.is_urgent(report))
        };
        if runtime.wait_for(is_news).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Makes a new identity; it is used even if it cannot be kept, else two processes would go on
    /// displacing each other.
    pub(super) async fn replace_identity(&mut self) {
        let other = self.client.view(self.identity.agent_id).await;
        let (old, state_dir) = (self.identity.clone(), self.state_dir.clone());
        let minted = tokio::task::spawn_blocking(move || old.mint_replacement(&state_dir)).await;
        let (identity, kept) = minted.expect("making an identity does not panic");
        tracing::warn!(
            agent.id = %identity.agent_id,
            cloned_from = %self.identity.agent_id,
            other = other.map(|other| told(&other, Utc::now())),
            "Another process uses this identity (a copied disk or state directory?); made a new one"
        );
        if let Err(error) = kept {
            let error = crate::error_chain(&error);
            tracing::error!(
                error,
                "The new identity could not be kept and ends with this process"
            );
        }
        self.identity = identity;
        self.ledger = Ledger::new(SessionId::new());
    }

    pub(super) async fn say_goodbye(&mut self, timeout: Duration) -> Result<(), CoordinatorError> {
        let credentials = (self.identity.agent_id, &self.identity.secret);
        self.client
            .say_goodbye(credentials, self.ledger.session(), timeout)
            .await
    }
}

/// Says who it is that uses the same identity.
fn told(other: &AgentView, now: DateTime<Utc>) -> String {
    let seconds = now
        .signed_duration_since(other.last_seen)
        .num_seconds()
        .max(0);
    format!(
        "{} at {}, seen {seconds} s ago",
        other.machine_name, other.ip_address
    )
}

/// Returns the address under which the coordinator reaches the runtime: the runtime's own when it
/// is told to be on one particular address, else this machine's address towards the coordinator.
fn reached_at(runtime: &BaseUrl, local_ip: IpAddr) -> IpAddr {
    let host = runtime.host().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_loopback() == local_ip.is_loopback() && !ip.is_unspecified() => ip,
        Ok(ip) if !ip.is_loopback() && !ip.is_unspecified() => ip,
        Ok(_) | Err(_) => local_ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("127.0.0.1:11434", "192.168.1.7", "192.168.1.7")]
    #[case("localhost:11434", "192.168.1.7", "192.168.1.7")]
    #[case("[::1]:11434", "192.168.1.7", "192.168.1.7")]
    #[case("192.168.9.9:11434", "192.168.1.7", "192.168.9.9")]
    #[case("[fd00::5]:11434", "192.168.1.7", "fd00::5")]
    #[case("127.0.0.1:11434", "127.0.0.1", "127.0.0.1")]
    #[case("localhost:11434", "127.0.0.1", "127.0.0.1")]
    #[case("[::1]:11434", "127.0.0.1", "::1")]
    #[case("192.168.9.9:11434", "127.0.0.1", "192.168.9.9")]
    fn address_is_the_runtimes_or_the_sockets(
        #[case] runtime: &str,
        #[case] local_ip: &str,
        #[case] expected: &str,
    ) {
        let runtime = BaseUrl::parse(runtime, 1).unwrap();

        let address = reached_at(&runtime, local_ip.parse().unwrap());

        assert_eq!(address, expected.parse::<IpAddr>().unwrap());
    }
}
