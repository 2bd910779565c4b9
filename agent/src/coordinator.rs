//! Speaks to the coordinator and says in one enum what came of it.

mod answer;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use chrono::Utc;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::dial::Dial;
use ollama_coordinator_common::doctor::connection;
use ollama_coordinator_common::doctor::impostor::{self, Impostor};
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpResponse, HttpTimeouts};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ollama_coordinator_common::protocol::register::{RegisterRequest, RegisterResponse};
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_coordinator_common::secret::AgentSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error_chain;

/// A connection to the coordinator that carries nothing but control messages.
#[derive(Debug)]
pub struct CoordinatorClient {
    http: HttpClient,
    clock_ahead: Option<i64>,
}

impl CoordinatorClient {
    /// Makes a client; nothing is dialled yet.
    pub fn new(coordinator: BaseUrl, dial: Dial, connect: Duration) -> Self {
        let timeouts = HttpTimeouts {
            connect,
            answer: connect,
        };
        Self {
            http: HttpClient::new(coordinator, timeouts).with_dial(dial),
            clock_ahead: None,
        }
    }

    /// Returns the coordinator's URL.
    pub fn url(&self) -> &BaseUrl {
        self.http.base()
    }

    /// Returns this machine's address on the very connection that reaches the coordinator;
    /// loopback when the coordinator is on this machine, whatever address it was reached under.
    pub async fn local_ip(&mut self) -> Result<IpAddr, CoordinatorError> {
        let ends = self.http.connect().await?;
        let local = ends.local.ip().to_canonical();
        let is_same_machine = local == ends.peer.ip().to_canonical();
        Ok(if is_same_machine {
            Ipv4Addr::LOCALHOST.into()
        } else {
            local
        })
    }

    /// Returns how many seconds the coordinator's clock is ahead of this machine's, as it said last.
    pub fn clock_ahead(&self) -> Option<i64> {
        self.clock_ahead
    }

    /// Asks how an agent is, which anybody may.
    pub async fn view(&mut self, id: AgentId) -> Option<AgentView> {
        let answer = self.http.get(&format!("/api/agents/{id}")).await.ok()?;
        answer.json().ok()
    }

    /// Drops the connection, so that the next message resolves the name and dials anew.
    pub fn disconnect(&mut self) {
        self.http.disconnect();
    }

    /// Asks to be known; answered when the coordinator has made it durable.
    pub async fn register(
        &mut self,
        secret: &AgentSecret,
        request: &RegisterRequest,
        timeout: Duration,
    ) -> Result<RegisterResponse, CoordinatorError> {
        self.http.set_answer_timeout(timeout);
        self.post("/api/agents", secret, request).await
    }

    /// Renews the lease.
    pub async fn heartbeat(
        &mut self,
        (agent_id, secret): (AgentId, &AgentSecret),
        request: &HeartbeatRequest,
        timeout: Duration,
    ) -> Result<HeartbeatResponse, CoordinatorError> {
        self.http.set_answer_timeout(timeout);
        let path = format!("/api/agents/{agent_id}/heartbeat");
        self.post(&path, secret, request).await
    }

    /// Ends the lease on purpose; the coordinator keeps the agent's record.
    pub async fn say_goodbye(
        &mut self,
        (agent_id, secret): (AgentId, &AgentSecret),
        session: SessionId,
        timeout: Duration,
    ) -> Result<(), CoordinatorError> {
        self.http.set_answer_timeout(timeout);
        let path = format!("/api/agents/{agent_id}/session?session={session}");
        let bearer = Some(secret.expose());
        let body = Vec::new().into();
        let answer = self
            .http
            .send(http::Method::DELETE, &path, bearer, body)
            .await?;
        if answer.status.is_success() {
            Ok(())
        } else {
            Err(CoordinatorError::from_answer(&answer))
        }
    }

    async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        secret: &AgentSecret,
        body: &impl Serialize,
    ) -> Result<T, CoordinatorError> {
        let answer = self
            .http
            .post_json(path, Some(secret.expose()), body)
            .await?;
        self.clock_ahead = connection::clock_ahead(&answer.headers, Utc::now());
        let error = match answer.json() {
            Ok(body) if answer.status.is_success() => return Ok(body),
            Ok(_) | Err(_) => CoordinatorError::from_answer(&answer),
        };
        if let CoordinatorError::NotACoordinator(Impostor::Unknown { .. }) = error {
            let impostor = connection::impostor(&mut self.http, &answer).await;
            return Err(CoordinatorError::NotACoordinator(impostor));
        }
        Err(error)
    }
}

/// Why the coordinator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorError {
    /// No usable answer.
    #[error("no answer from the coordinator")]
    Unreachable(#[from] HttpError),
    /// It does not know this agent's id.
    #[error("the coordinator does not know this agent")]
    UnknownAgent,
    /// It knows the id with another secret.
    #[error(
        "the coordinator knows this agent's id with another secret; if agent.json was restored \
         from a backup, remove the agent from the coordinator or start with an empty state \
         directory"
    )]
    WrongSecret,
    /// Another live process uses the same identity.
    #[error("another process uses this agent's identity")]
    DuplicateIdentity,
    /// It refuses what was said.
    #[error("the coordinator refuses: {detail}")]
    Invalid {
        /// What it said, made fit for one line.
        detail: String,
    },
    /// The wish to turn the connection into a tunnel has not reached it.
    #[error(
        "a reverse proxy in front of the coordinator lets no tunnel through: it has to pass on the \
         headers `Upgrade` and `Connection`"
    )]
    NotUpgraded,
    /// It cannot do it now.
    #[error("the coordinator cannot do this now: {detail}")]
    Busy {
        /// What it said, made fit for one line.
        detail: String,
        /// When to try again, if it said so.
        retry_after: Option<Duration>,
    },
    /// This agent is too old for it.
    #[error("{detail}; update ollama-agent on this machine")]
    TooOld {
        /// What it said, made fit for one line.
        detail: String,
    },
    /// Something else answers at its address.
    #[error("something answers, but {0}")]
    NotACoordinator(Impostor),
}

impl CoordinatorError {
    /// Reads what an answer means that is not the one hoped for.
    pub(crate) fn from_answer(answer: &HttpResponse) -> Self {
        answer::refusal(answer)
    }

    /// Says on one line what is wrong and what to do about it.
    pub(crate) fn explain(&self, coordinator: &BaseUrl) -> String {
        match self {
            Self::Unreachable(error) => impostor::explain(error, coordinator).to_string(),
            Self::NotACoordinator(impostor) => impostor.explain(coordinator).to_string(),
            Self::UnknownAgent
            | Self::WrongSecret
            | Self::DuplicateIdentity
            | Self::Invalid { .. }
            | Self::NotUpgraded
            | Self::Busy { .. }
            | Self::TooOld { .. } => error_chain(self),
        }
    }
}
