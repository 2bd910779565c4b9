//! A client's request on its way to a model, in four steps: target, acquire, forward, relay.
//!
//! Bytes pass untouched both ways. A client that leaves drops the response body, which drops the
//! upstream's stream and the permit with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::time::Instant;
use tower_http::cors::AllowHeaders;

use crate::api::open_to_all_origins;
use crate::balancer::permit::{Failure, Outcome, Permit};
use crate::balancer::state::Settings;
use crate::balancer::{AcquireError, Acquired, Balancer, Wanted};
use crate::registry::Registry;
use crate::state::AppState;

pub mod error;
pub mod forward;
pub mod headers;
pub mod hops;
pub mod lists;
pub mod relay;
pub mod story;
pub mod target;
pub mod upstream;

use error::{Dialect, ProxyError};
use forward::ForwardError;
use target::Target;
use upstream::UpstreamClient;

/// Names the agent that answered.
pub const AGENT_HEADER: HeaderName = HeaderName::from_static("x-coordinator-agent");
/// The most agents that are tried for one request.
const MAX_ATTEMPTS: usize = 8;
/// No further agent is tried when so much time has gone by without a connection.
const ATTEMPTS_TIME: Duration = Duration::from_secs(10);

/// A handle to the way to a model.
#[derive(Clone)]
pub struct Proxy {
    registry: Registry,
    balancer: Balancer,
    upstream: UpstreamClient,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    relayed: AtomicU64,
    unanswered: AtomicU64,
}

/// What the proxy has done since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyTotals {
    /// Requests relayed to an agent.
    pub relayed: u64,
    /// Requests that no agent could answer.
    pub unanswered: u64,
    /// Requests being served now.
    pub in_flight: u64,
}

impl Proxy {
    /// Makes a proxy to the agents of `registry`.
    pub fn new(registry: Registry, balancing: Settings) -> Self {
        Self {
            balancer: Balancer::new(registry.clone(), balancing),
            registry,
            upstream: UpstreamClient::default(),
            counters: Arc::default(),
        }
    }

    /// Returns who chooses the agents.
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Returns what the proxy has done since the start.
    pub fn totals(&self) -> ProxyTotals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProxyTotals {
            relayed: load(&self.counters.relayed),
            unanswered: load(&self.counters.unanswered),
            in_flight: self.registry.in_flight(),
        }
    }

    async fn answer(&self, request: Request, dialect: Dialect) -> Result<Response, ProxyError> {
        if hops::has_passed(request.headers(), self.registry.instance_id()) {
            return Err(ProxyError::Loop);
        }
        let target = Target::read(request).await?;
        let wanted = Wanted {
            model: &target.model,
            ollama_only: dialect == Dialect::Ollama,
            only: &[],
            tried: &[],
            client: 0,
            prefix: None,
        };
        let (permit, response) = self.forward(&target, wanted).await?;
        let agent = HeaderValue::from_str(&permit.candidate().id.to_string());
        let mut response = relay::relay(response, permit);
        response
            .headers_mut()
            .insert(AGENT_HEADER, agent.expect("a UUID is a header value"));
        Ok(response)
    }

    /// Sends the request to one agent after another until one takes it.
    async fn forward(
        &self,
        target: &Target,
        wanted: Wanted<'_>,
    ) -> Result<(Permit, upstream::UpstreamResponse), ProxyError> {
        let mut tried = Vec::new();
        let started = Instant::now();
        let hop = self.registry.instance_id();
        loop {
            let tried_wanted = Wanted {
                tried: &tried,
                ..wanted
            };
            let permit = match self.balancer.acquire(tried_wanted) {
                Ok(Acquired::Ready(permit)) => Ok(permit),
                Ok(Acquired::Queued(waiter)) => waiter.await,
                Err(error) => Err(error),
            };
            let permit = match permit {
                Ok(permit) => permit,
                Err(AcquireError::Exhausted) => return Err(ProxyError::Unreachable),
                Err(error) => {
                    return Err(ProxyError::NoAgent {
                        model: target.model.clone(),
                        error,
                    });
                }
            };
            let link = permit.candidate().link;
            match forward::attempt(&self.upstream, link, target, hop).await {
                Ok(response) => return Ok((permit, response)),
                Err(ForwardError::NotConnected(error)) => {
                    tracing::warn!(
                        agent.name = &*permit.candidate().name,
                        error = &error as &dyn std::error::Error,
                        "Agent could not be reached"
                    );
                    self.registry.doubt_reach(permit.candidate().id);
                    tried.push(permit.candidate().id);
                    permit.settle(Outcome::Failure(Failure::NotConnected), None);
                    if tried.len() == MAX_ATTEMPTS || started.elapsed() >= ATTEMPTS_TIME {
                        return Err(ProxyError::Unreachable);
                    }
                }
                Err(ForwardError::Broken(error)) => {
                    permit.settle(Outcome::Failure(Failure::Broken), None);
                    return Err(ProxyError::Broken(error));
                }
                Err(ForwardError::Silent(after)) => {
                    permit.settle(Outcome::Failure(Failure::Silent), None);
                    return Err(ProxyError::Silent(after));
                }
            }
        }
    }
}

/// Returns the routes of the runtimes.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(lists::root))
        .route("/api/version", get(lists::version))
        .route("/api/tags", get(lists::tags))
        .route("/v1/models", get(lists::models))
        .route("/api/chat", post(ollama))
        .route("/api/generate", post(ollama))
        .route("/v1/chat/completions", post(openai))
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(
            open_to_all_origins()
                .allow_methods([Method::GET, Method::POST])
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers([AGENT_HEADER, header::RETRY_AFTER]),
        )
}

async fn ollama(State(proxy): State<Proxy>, request: Request) -> Response {
    respond(proxy, request, Dialect::Ollama).await
}

async fn openai(State(proxy): State<Proxy>, request: Request) -> Response {
    respond(proxy, request, Dialect::OpenAi).await
}

async fn respond(proxy: Proxy, request: Request, dialect: Dialect) -> Response<Body> {
    match proxy.answer(request, dialect).await {
        Ok(response) => {
            proxy.counters.relayed.fetch_add(1, Ordering::Relaxed);
            response
        }
        Err(error) => {
            proxy.counters.unanswered.fetch_add(1, Ordering::Relaxed);
            error.in_dialect(dialect).into_response()
        }
    }
}
