//! An agent that does exactly what a test says, when it says so.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::Full;
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::register::RegisterResponse;
use ollama_coordinator_common::protocol::runtime::{Model, RuntimeReport, RuntimeStatus};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::secret::AgentSecret;
use ollama_simulator::runtime::ScriptedRuntime;
use serde_json::{Value, json};

use super::api::{Answer, Api, BoxError, request};

/// Nothing listens here (the port of the discard service, on loopback).
const NOBODY: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

/// An identity and what it says of its runtime.
#[derive(Debug, Clone)]
pub(crate) struct FakeAgent {
    pub(crate) id: AgentId,
    pub(crate) secret: AgentSecret,
    pub(crate) session: SessionId,
    pub(crate) name: String,
    pub(crate) runtime: SocketAddr,
    pub(crate) link: LinkKind,
    pub(crate) report: RuntimeReport,
}

impl FakeAgent {
    /// Makes an agent whose runtime cannot be reached.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            id: AgentId::new(),
            secret: AgentSecret::generate(),
            session: SessionId::new(),
            name: name.to_owned(),
            runtime: NOBODY.into(),
            link: LinkKind::Direct,
            report: RuntimeReport {
                status: RuntimeStatus::Running,
                version: Some("0.12.0".to_owned()),
                ..RuntimeReport::default()
            },
        }
    }

    /// Makes an agent that fronts `runtime` and says so.
    pub(crate) fn in_front_of(runtime: &ScriptedRuntime, name: &str) -> Self {
        let mut agent = Self::new(name);
        agent.runtime = runtime.addr();
        agent.report.version = Some(runtime.script().version.clone());
        agent.report.models.clone_from(&runtime.script().models);
        agent
    }

    /// Claims models that no runtime has to back up.
    pub(crate) fn with_models(mut self, models: &[&str]) -> Self {
        self.report.models = models.iter().copied().map(Model::named).collect();
        self
    }

    /// Returns the registration.
    pub(crate) fn registration(&self) -> Value {
        json!({
            "agent_id": self.id,
            "session": self.session,
            "machine_name": self.name,
            "ip_address": self.runtime.ip(),
            "port": self.runtime.port(),
            "link": self.link,
            "runtime": self.report,
        })
    }

    /// Registers and expects to be accepted.
    pub(crate) async fn register(&self, api: Api) -> RegisterResponse {
        let mut answer = self.send(api, "/api/agents", &self.registration()).await;
        assert!(answer.status.is_success(), "{}", answer.text().await);
        answer.parsed().await
    }

    /// Registers and waits until requests come here.
    pub(crate) async fn join(&self, api: Api) {
        self.register(api).await;
        api.wait_until_routable(self.id).await;
    }

    /// Sends a heartbeat of this session.
    pub(crate) async fn beat(&self, api: Api) -> Answer {
        let body = json!({ "session": self.session });
        self.send(api, &self.path("/heartbeat"), &body).await
    }

    /// Sends a heartbeat that may find nobody.
    pub(crate) async fn try_beat(&self, api: Api) -> Result<Answer, BoxError> {
        let body = json!({ "session": self.session }).to_string();
        let beat = request(Method::POST, &self.path("/heartbeat"), body);
        api.try_send(self.signed(beat)).await
    }

    /// Says goodbye for this session.
    pub(crate) async fn leave(&self, api: Api) -> Answer {
        let path = self.path(&format!("/session?session={}", self.session));
        api.send(self.signed(request(Method::DELETE, &path, "")))
            .await
    }

    /// Posts `body` with this agent's secret.
    pub(crate) async fn send(&self, api: Api, path: &str, body: &Value) -> Answer {
        let request = request(Method::POST, path, body.to_string());
        api.send(self.signed(request)).await
    }

    /// Adds this agent's secret to a request.
    pub(crate) fn signed(&self, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
        let bearer = format!("Bearer {}", self.secret.expose());
        let bearer = HeaderValue::from_str(&bearer).expect("a secret is ASCII");
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request
    }

    /// Returns a path below this agent's own.
    pub(crate) fn path(&self, below: &str) -> String {
        format!("/api/agents/{}{below}", self.id)
    }
}
