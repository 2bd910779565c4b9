//! Who the simulated agents are and what each says: the real protocol, made from seed and index.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, StatusCode};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::http::{HttpClient, HttpError, HttpResponse, HttpTimeouts};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::error::{ErrorCode, Problem};
use ollama_coordinator_common::protocol::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ollama_coordinator_common::protocol::register::{RegisterRequest, RegisterResponse};
use ollama_coordinator_common::protocol::runtime::{
    LoadedModel, Model, RuntimeKind, RuntimeReport, RuntimeStatus,
};
use ollama_coordinator_common::protocol::system::{Gpu, Metrics, SystemInfo};
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::FleetOptions;
use super::roster::{AgentCall, CallOutcome};
use crate::runtime::script::RuntimeScript;

const GIB: u64 = 1 << 30;
const TIMEOUTS: HttpTimeouts = HttpTimeouts {
    connect: Duration::from_secs(5),
    answer: Duration::from_secs(5),
};

/// Everything that does not change while a fleet runs.
#[derive(Debug)]
pub(super) struct Cast {
    coordinator: SocketAddr,
    runtime: SocketAddr,
    system_info: SystemInfo,
    report: RuntimeReport,
    seed: u64,
    sessions: Vec<SessionId>,
}

impl Cast {
    pub(super) fn new(options: &FleetOptions) -> Self {
        Self {
            coordinator: options.coordinator,
            runtime: options.runtime,
            system_info: system_info(),
            report: runtime_report(),
            seed: options.seed,
            sessions: (0..options.agents).map(|_| SessionId::new()).collect(),
        }
    }

    /// Makes a client of the coordinator; nothing is dialled yet.
    pub(super) fn client(&self) -> HttpClient {
        HttpClient::new(BaseUrl::from_addr(self.coordinator), TIMEOUTS)
    }

    pub(super) fn id(&self, agent: usize) -> AgentId {
        let random: u128 = self.numbers(agent).random();
        let id = uuid::Builder::from_random_bytes(random.to_be_bytes()).into_uuid();
        AgentId::from_u128(id.as_u128())
    }

    /// Performs one call and says how it ended.
    pub(super) async fn perform(
        &self,
        client: &mut HttpClient,
        agent: usize,
        call: AgentCall,
    ) -> CallOutcome {
        let id = self.id(agent);
        let secret = self.secret(agent);
        let answered = match call {
            AgentCall::Register { last_epoch } => {
                let request = self.register_request(agent, last_epoch);
                client
                    .post_json("/api/agents", Some(&secret), &request)
                    .await
            }
            AgentCall::Heartbeat { epoch, seq } => {
                let request = HeartbeatRequest {
                    session: Some(self.sessions[agent]),
                    epoch: Some(epoch),
                    seq: Some(seq),
                    metrics: Some(self.metrics(agent, seq)),
                    ..HeartbeatRequest::default()
                };
                let path = format!("/api/agents/{id}/heartbeat");
                client.post_json(&path, Some(&secret), &request).await
            }
            AgentCall::Goodbye => {
                let path = format!("/api/agents/{id}/session");
                let body = bytes::Bytes::new();
                client
                    .send(Method::DELETE, &path, Some(&secret), body)
                    .await
            }
        };
        answered
            .and_then(|response| read_outcome(call, &response))
            .unwrap_or_else(|error| {
                tracing::debug!(agent.id = %id, %error, "Simulated agent failed");
                CallOutcome::Failed { retry_after: None }
            })
    }

    fn register_request(&self, agent: usize, last_epoch: u64) -> RegisterRequest {
        RegisterRequest {
            machine_name: format!("simulated-{agent:06}"),
            port: self.runtime.port(),
            ollama_version: self.report.version.clone(),
            ip_address: Some(self.runtime.ip()),
            link: LinkKind::Direct,
            agent_id: Some(self.id(agent)),
            session: Some(self.sessions[agent]),
            epoch: (last_epoch > 0).then_some(last_epoch),
            cloned_from: None,
            system_info: Some(self.system_info.clone()),
            runtime: Some(self.report.clone()),
            paused: None,
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        }
    }

    /// Makes up a load that moves from heartbeat to heartbeat, as a machine's does.
    fn metrics(&self, agent: usize, seq: u64) -> Metrics {
        let mut numbers = SmallRng::seed_from_u64(self.seed ^ seq.rotate_left(32) ^ agent as u64);
        let memory = 20 * GIB + numbers.random_range(0..GIB);
        Metrics {
            cpu_percent: Some(numbers.random_range(4.0..12.0)),
            memory_used_bytes: Some(memory),
            gpu_percent: Some(numbers.random_range(0.0..4.0)),
            gpu_memory_used_bytes: Some(6 * GIB),
            gpu_temperature_celsius: Some(41.0),
        }
    }

    fn secret(&self, agent: usize) -> String {
        let mut numbers = self.numbers(agent);
        numbers.random::<u128>();
        format!("simulated-{:032x}", numbers.random::<u128>())
    }

    fn numbers(&self, agent: usize) -> SmallRng {
        SmallRng::seed_from_u64(self.seed.rotate_left(32) ^ agent as u64)
    }
}

fn read_outcome(call: AgentCall, response: &HttpResponse) -> Result<CallOutcome, HttpError> {
    if response.status == StatusCode::NOT_FOUND && is_unknown_agent(response) {
        return Ok(CallOutcome::Unknown);
    }
    if !response.status.is_success() {
        tracing::debug!(
            status = response.status.as_u16(),
            "Simulated agent was refused"
        );
        let retry_after = response.headers.get("retry-after");
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        return Ok(CallOutcome::Failed {
            retry_after: seconds.map(Duration::from_secs),
        });
    }
    match call {
        AgentCall::Register { .. } => {
            let RegisterResponse { epoch, lease, .. } = response.json()?;
            Ok(CallOutcome::Granted { epoch, lease })
        }
        AgentCall::Heartbeat { .. } => {
            let HeartbeatResponse { epoch, lease, .. } = response.json()?;
            Ok(CallOutcome::Granted { epoch, lease })
        }
        AgentCall::Goodbye => Ok(CallOutcome::Left),
    }
}

fn is_unknown_agent(response: &HttpResponse) -> bool {
    response
        .json::<Problem>()
        .is_ok_and(|problem| problem.code == ErrorCode::UnknownAgent)
}

fn system_info() -> SystemInfo {
    SystemInfo {
        os: Some("Simulated Linux".to_owned()),
        arch: Some("x86_64".to_owned()),
        cpu: Some("Simulated CPU".to_owned()),
        cpu_cores: Some(16),
        memory_bytes: Some(64 * GIB),
        gpus: Some(vec![Gpu {
            name: "Simulated GPU".to_owned(),
            memory_bytes: Some(24 * GIB),
            driver: None,
        }]),
    }
}

fn runtime_report() -> RuntimeReport {
    let script = RuntimeScript::dev_defaults(0);
    let mut models: Vec<Model> = script.models.into_iter().take(2).collect();
    models.sort_by(|a, b| a.name.cmp(&b.name));
    let loaded = models.iter().take(1).map(|model| LoadedModel {
        name: model.name.clone(),
        size: model.size,
        size_vram: model.size,
        expires_at: None,
        context_length: Some(4096),
    });
    RuntimeReport {
        kind: RuntimeKind::Ollama,
        status: RuntimeStatus::Running,
        version: Some(script.version),
        loaded_models: loaded.collect(),
        models,
        slots: NonZeroU32::new(4),
    }
}
