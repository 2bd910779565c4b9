//! A coordinator that answers as scripted and remembers what it was told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::id::{AgentId, InstanceId, SessionId};
use ollama_coordinator_common::probe::COORDINATOR_SERVICE;
use ollama_coordinator_common::protocol::heartbeat::HeartbeatRequest;
use ollama_coordinator_common::protocol::register::RegisterRequest;
use ollama_coordinator_common::protocol::tunnel::PROTOCOL;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::server::{Reserved, Server};
use super::tunnel::TestTunnel;
use super::{DEADLINE, wait_for};

/// One message as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) bearer: Option<String>,
    pub(crate) said: Said,
}

/// What an agent said.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Register(Box<RegisterRequest>),
    Heartbeat(AgentId, Box<HeartbeatRequest>),
    Goodbye(AgentId),
    Tunnel(AgentId, SessionId),
}

/// What came so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(pub(crate) Vec<Message>);

impl Log {
    pub(crate) fn registrations(&self) -> Vec<&RegisterRequest> {
        let registrations = self.0.iter().map(|message| match &message.said {
            Said::Register(request) => Some(&**request),
            Said::Heartbeat(..) | Said::Goodbye(_) | Said::Tunnel(..) => None,
        });
        registrations.flatten().collect()
    }

    pub(crate) fn heartbeats(&self) -> Vec<&HeartbeatRequest> {
        let heartbeats = self.0.iter().map(|message| match &message.said {
            Said::Heartbeat(_, request) => Some(&**request),
            Said::Register(_) | Said::Goodbye(_) | Said::Tunnel(..) => None,
        });
        heartbeats.flatten().collect()
    }

    pub(crate) fn goodbyes(&self) -> Vec<AgentId> {
        let goodbyes = self.0.iter().map(|message| match message.said {
            Said::Goodbye(id) => Some(id),
            Said::Register(_) | Said::Heartbeat(..) | Said::Tunnel(..) => None,
        });
        goodbyes.flatten().collect()
    }

    /// Returns the sessions that asked for a tunnel.
    pub(crate) fn tunnels(&self) -> Vec<(AgentId, SessionId)> {
        let tunnels = self.0.iter().map(|message| match message.said {
            Said::Tunnel(id, session) => Some((id, session)),
            Said::Register(_) | Said::Heartbeat(..) | Said::Goodbye(_) => None,
        });
        tunnels.flatten().collect()
    }
}

/// One scripted answer.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Problem(u16, &'static str),
    Text(u16, &'static str, &'static str),
    Never,
}

#[derive(Debug)]
struct Script {
    instance_id: InstanceId,
    interval: Duration,
    ttl: Duration,
    registrations: VecDeque<Answer>,
    heartbeats: VecDeque<Answer>,
    tunnels: VecDeque<Answer>,
    /// What its clock says, when that is wrong.
    date: Option<String>,
    opened: mpsc::UnboundedSender<TestTunnel>,
    opening: JoinSet<()>,
    log: watch::Sender<Log>,
}

/// A coordinator under the test's control.
#[derive(Debug)]
pub(crate) struct FakeCoordinator {
    server: Server,
    script: Arc<Mutex<Script>>,
    log: watch::Receiver<Log>,
    opened: mpsc::UnboundedReceiver<TestTunnel>,
}

impl FakeCoordinator {
    pub(crate) fn start() -> Self {
        Self::start_at(Reserved::new())
    }

    pub(crate) fn start_at(reserved: Reserved) -> Self {
        let (sender, log) = watch::channel(Log::default());
        let (opening, opened) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(Script {
            instance_id: InstanceId::new(),
            interval: Duration::from_millis(20),
            ttl: Duration::from_secs(2),
            registrations: VecDeque::new(),
            heartbeats: VecDeque::new(),
            tunnels: VecDeque::new(),
            date: None,
            opened: opening,
            opening: JoinSet::new(),
            log: sender,
        }));
        let router = Router::new()
            .route("/healthz", get(health))
            .route("/api/agents", post(register))
            .route("/api/agents/{id}", get(show))
            .route("/api/agents/{id}/heartbeat", post(renew))
            .route("/api/agents/{id}/session", delete(leave))
            .route("/api/agents/{id}/tunnel", get(open_tunnel))
            .with_state(Arc::clone(&script));
        Self {
            server: reserved.serve(router),
            script,
            log,
            opened,
        }
    }

    /// Waits for the next tunnel that is opened.
    pub(crate) async fn tunnel(&mut self) -> TestTunnel {
        let opened = tokio::time::timeout(DEADLINE, self.opened.recv()).await;
        opened.expect("a tunnel is opened in time").unwrap()
    }

    pub(crate) fn url(&self) -> BaseUrl {
        self.server.url()
    }

    pub(crate) fn lease(&self, interval: Duration, ttl: Duration) {
        let mut script = self.script.lock();
        script.interval = interval;
        script.ttl = ttl;
    }

    pub(crate) fn answer_registrations(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().registrations.extend(answers);
    }

    pub(crate) fn answer_heartbeats(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().heartbeats.extend(answers);
    }

    pub(crate) fn answer_tunnels(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().tunnels.extend(answers);
    }

    /// Sets the clock that its answers show.
    pub(crate) fn set_date(&self, date: String) {
        self.script.lock().date = Some(date);
    }

    /// Pretends that this is another run of the coordinator.
    pub(crate) fn change_instance(&self) {
        self.script.lock().instance_id = InstanceId::new();
    }

    pub(crate) fn forget_log(&self) {
        self.script.lock().log.send_replace(Log::default());
    }

    pub(crate) async fn wait_for(&mut self, condition: impl FnMut(&Log) -> bool) -> Log {
        wait_for(&mut self.log, condition).await
    }

    pub(crate) async fn stop(self) -> Reserved {
        self.server.stop().await
    }
}

async fn health() -> axum::Json<Value> {
    axum::Json(json!({ "status": "ok", "service": COORDINATOR_SERVICE, "version": "1.2.3" }))
}

async fn register(
    State(script): State<Arc<Mutex<Script>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: RegisterRequest = serde_json::from_slice(&body).unwrap();
    let id = request.agent_id;
    let scripted = {
        let mut script = script.lock();
        record(&script, &headers, Said::Register(Box::new(request)));
        script.registrations.pop_front()
    };
    match scripted {
        Some(answer) => answered(answer).await,
        None => granted(&script.lock(), StatusCode::CREATED, json!({ "id": id })),
    }
}

/// Shows any agent as one of another machine.
async fn show(Path(id): Path<AgentId>) -> axum::Json<Value> {
    axum::Json(json!({
        "id": id, "machine_name": "the-original", "ip_address": "192.168.1.5", "port": 11434,
        "status": "online", "routable": true, "draining": false, "in_flight": 0, "epoch": 1,
        "runtime": { "kind": "ollama", "status": "running" }, "models": [], "loaded_models": [],
        "labels": {}, "registered_at": "2026-11-24T12:00:00Z", "last_seen": "2026-11-24T12:00:00Z",
    }))
}

async fn renew(
    State(script): State<Arc<Mutex<Script>>>,
    Path(id): Path<AgentId>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request: HeartbeatRequest = serde_json::from_slice(&body).unwrap();
    let scripted = {
        let mut script = script.lock();
        record(&script, &headers, Said::Heartbeat(id, Box::new(request)));
        script.heartbeats.pop_front()
    };
    match scripted {
        Some(answer) => answered(answer).await,
        None => granted(&script.lock(), StatusCode::OK, json!({ "routable": true })),
    }
}

async fn leave(
    State(script): State<Arc<Mutex<Script>>>,
    Path(id): Path<AgentId>,
    headers: HeaderMap,
) -> StatusCode {
    record(&script.lock(), &headers, Said::Goodbye(id));
    StatusCode::NO_CONTENT
}

#[derive(Debug, Deserialize)]
struct TunnelQuery {
    session: SessionId,
}

async fn open_tunnel(
    State(script): State<Arc<Mutex<Script>>>,
    Path(id): Path<AgentId>,
    Query(query): Query<TunnelQuery>,
    request: Request,
) -> Response {
    let scripted = {
        let mut script = script.lock();
        record(&script, request.headers(), Said::Tunnel(id, query.session));
        script.tunnels.pop_front()
    };
    if let Some(answer) = scripted {
        return answered(answer).await;
    }
    assert_eq!(request.headers()[header::UPGRADE], PROTOCOL);
    let upgrade = hyper::upgrade::on(request);
    let mut script = script.lock();
    let opened = script.opened.clone();
    script.opening.spawn(async move {
        let upgraded = upgrade.await.unwrap();
        // A test that waits for no tunnel has none; its end closes this one.
        drop(opened.send(TestTunnel::begin(upgraded).await));
    });
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn record(script: &Script, headers: &HeaderMap, said: Said) {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .map(|value| value.to_str().unwrap());
    let bearer = bearer.map(|value| value.strip_prefix("Bearer ").unwrap().to_owned());
    script
        .log
        .send_modify(|log| log.0.push(Message { bearer, said }));
}

fn granted(script: &Script, status: StatusCode, mut body: Value) -> Response {
    let lease = json!({
        "heartbeat_interval_ms": u64::try_from(script.interval.as_millis()).unwrap(),
        "ttl_ms": u64::try_from(script.ttl.as_millis()).unwrap(),
    });
    body["status"] = "online".into();
    body["epoch"] = 7.into();
    body["lease"] = lease;
    body["coordinator"] = json!({ "instance_id": script.instance_id });
    let mut answer = (status, axum::Json(body)).into_response();
    if let Some(date) = &script.date {
        answer
            .headers_mut()
            .insert(header::DATE, date.parse().unwrap());
    }
    answer
}

async fn answered(answer: Answer) -> Response {
    match answer {
        Answer::Problem(status, code) => {
            let body = json!({
                "type": "about:blank", "title": "scripted", "status": status,
                "detail": "as scripted", "code": code,
                "request_id": "00000000-0000-0000-0000-000000000000",
            });
            (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
        }
        Answer::Text(status, content_type, body) => {
            let headers = [(header::CONTENT_TYPE, content_type)];
            (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
        }
        Answer::Never => std::future::pending().await,
    }
}
