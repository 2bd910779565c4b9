//! The smallest coordinator that a fleet can talk to. It keeps what it was told, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ollama_coordinator_common::id::{AgentId, InstanceId};
use ollama_coordinator_common::protocol::register::RegisterRequest;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A running fake; it ends when dropped.
pub(crate) struct FakeCoordinator {
    pub(crate) addr: SocketAddr,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct State {
    interval: Duration,
    known: Mutex<BTreeMap<AgentId, String>>,
    log: Mutex<Log>,
}

/// What the agents said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log {
    pub(crate) registrations: Vec<RegisterRequest>,
    pub(crate) heartbeats: Vec<(AgentId, u64)>,
    pub(crate) goodbyes: BTreeSet<AgentId>,
    pub(crate) wrong_secrets: usize,
}

impl FakeCoordinator {
    pub(crate) async fn start(interval: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let state = Arc::new(State {
            interval,
            known: Mutex::default(),
            log: Mutex::default(),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(listener, Arc::clone(&state)));
        Self {
            addr,
            state,
            _serving: serving,
        }
    }

    pub(crate) fn log(&self) -> Log {
        self.state.log.lock().clone()
    }

    pub(crate) fn heartbeats(&self) -> usize {
        self.state.log.lock().heartbeats.len()
    }

    /// Forgets every agent, as after a restart without its registry.
    pub(crate) fn forget_everyone(&self) {
        self.state.known.lock().clear();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| answer(Arc::clone(&state), request));
        let io = TokioIo::new(stream);
        connections.spawn(async move {
            drop(http1::Builder::new().serve_connection(io, service).await);
        });
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.expect("the body arrives").to_bytes();
    let secret = head
        .headers
        .get(AUTHORIZATION)
        .and_then(|s| s.to_str().ok());
    let secret = secret.unwrap_or_default().to_owned();
    let path: Vec<_> = head.uri.path().split('/').skip(1).collect();
    let (status, answer) = match (&head.method, &path[..]) {
        (&Method::POST, ["api", "agents"]) => state.register(&body, secret),
        (&Method::POST, ["api", "agents", id, "heartbeat"]) => {
            let beat = serde_json::from_slice(&body).expect("a heartbeat is JSON");
            state.renew(id, &beat, &secret)
        }
        (&Method::DELETE, ["api", "agents", id, "session"]) => {
            let id = id.parse().expect("the id is a UUID");
            state.log.lock().goodbyes.insert(id);
            (204, Value::Null)
        }
        _ => (404, json!({})),
    };
    let body = if status == 204 {
        String::new()
    } else {
        answer.to_string()
    };
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status.try_into().expect("it is a status");
    Ok(response)
}

impl State {
    fn register(&self, body: &[u8], secret: String) -> (u16, Value) {
        let request: RegisterRequest = serde_json::from_slice(body).expect("it is a registration");
        let id = request.agent_id.expect("simulated agents have ids");
        let was_known = self.known.lock().insert(id, secret).is_some();
        self.log.lock().registrations.push(request);
        let mut answer = self.granted();
        answer["id"] = json!(id);
        (if was_known { 200 } else { 201 }, answer)
    }

    fn renew(&self, id: &str, beat: &Value, secret: &str) -> (u16, Value) {
        let id = id.parse().expect("the id is a UUID");
        let known = self.known.lock().get(&id).cloned();
        let mut log = self.log.lock();
        match known {
            None => (404, unknown_agent()),
            Some(known) if known != secret => {
                log.wrong_secrets += 1;
                (403, json!({}))
            }
            Some(_) => {
                let seq = beat["seq"].as_u64().expect("heartbeats are counted");
                log.heartbeats.push((id, seq));
                let mut answer = self.granted();
                answer["routable"] = json!(true);
                (200, answer)
            }
        }
    }

    fn granted(&self) -> Value {
        let interval_ms = u64::try_from(self.interval.as_millis()).expect("it is short");
        json!({
            "status": "online",
            "epoch": 7,
            "lease": { "heartbeat_interval_ms": interval_ms, "ttl_ms": interval_ms * 3 + 1_000 },
            "coordinator": { "instance_id": InstanceId::from_u128(1) },
        })
    }
}

fn unknown_agent() -> Value {
    json!({
        "type": "about:blank", "title": "Unknown agent", "status": 404,
        "detail": "register again", "code": "unknown_agent",
        "request_id": "00000000-0000-0000-0000-000000000001",
    })
}
