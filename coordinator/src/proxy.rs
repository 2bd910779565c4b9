//! A client's request on its way to a model.
//!
//! Read in this order: [`route`] (which way a request takes), [`target`] and [`peek`] (what it asks
//! for), [`attempts`] (acquire an agent, [`forward`], try another), [`relay`] (the answer on its
//! way back), [`early`] (signs of life while a client waits); [`machines`] for requests to machines
//! rather than models, [`lists`] for what the registry answers. Bytes pass untouched both ways. A
//! client that leaves drops the response body, which drops the upstream's connection and the permit.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::pin;
use std::sync::Arc;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use hyper::body::Incoming;

use crate::api::address::Peer;
use crate::balancer::Balancer;
use crate::balancer::policy::Policy;
use crate::config::proxy::ProxySettings;
use crate::registry::Registry;

mod attempts;
pub mod body;
pub mod cancel;
pub mod cors;
pub mod early;
pub mod error;
pub mod forward;
pub mod headers;
pub mod hops;
pub mod lists;
pub mod machines;
mod nudge;
pub mod patience;
pub mod peek;
pub mod relay;
pub mod retry;
pub mod route;
pub mod selector;
pub mod story;
pub mod tail;
pub mod target;
pub mod tunnels;
pub mod upstream;

use attempts::Asked;
use body::ProxyBody;
use early::{Answering, Voice};
use error::{Dialect, ProxyError};
use machines::Ask;
use machines::aim::AimError;
use peek::{Peek, Prefix};
use retry::RetryBudget;
use route::{Inference, NoRoute, Route};
use selector::{Selection, SelectorError};
use story::{Story, Storybook};
use target::{BodyMemory, Target};
use tunnels::Tunnels;
use upstream::UpstreamClient;

/// Names the agent that answered.
pub const AGENT_HEADER: HeaderName = HeaderName::from_static("x-coordinator-agent");
/// Says how many agents were asked.
pub const ATTEMPTS_HEADER: HeaderName = HeaderName::from_static("x-coordinator-attempts");
/// Names the request in the request log.
pub const REQUEST_HEADER: HeaderName = HeaderName::from_static("x-coordinator-request");
/// Says how long each step took.
pub const TIMING_HEADER: HeaderName = HeaderName::from_static("server-timing");

/// A handle to the way to a model.
#[derive(Clone)]
pub struct Proxy(Arc<Shared>);

struct Shared {
    registry: Registry,
    balancer: Balancer,
    upstream: UpstreamClient,
    tunnels: Tunnels,
    storybook: Storybook,
    settings: ProxySettings,
    budget: RetryBudget,
    memory: BodyMemory,
    clients: RandomState,
    /// What says that a request has passed here.
    hop: HeaderValue,
}

impl Proxy {
    /// Makes a proxy to the agents of `registry`.
    pub fn new(
        registry: Registry,
        balancer: Balancer,
        settings: ProxySettings,
        storybook: Storybook,
    ) -> Self {
        let tunnels = Tunnels::new(registry.clone());
        let hop = hops::value(registry.instance_id());
        Self(Arc::new(Shared {
            registry,
            balancer,
            upstream: UpstreamClient::new(settings.connect_timeout, tunnels.clone()),
            tunnels,
            storybook,
            settings,
            budget: RetryBudget::default(),
            memory: BodyMemory::default(),
            clients: RandomState::new(),
            hop,
        }))
    }

    /// Returns who chooses the agents.
    pub fn balancer(&self) -> &Balancer {
        &self.0.balancer
    }

    /// Returns what is known of requests.
    pub fn storybook(&self) -> &Storybook {
        &self.0.storybook
    }

    /// Returns the agents.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Returns the client that carries traffic to agents.
    pub fn upstream(&self) -> &UpstreamClient {
        &self.0.upstream
    }

    /// Returns the tunnels of agents.
    pub fn tunnels(&self) -> &Tunnels {
        &self.0.tunnels
    }

    /// Answers a request of a client.
    pub async fn serve(&self, request: Request<Incoming>, peer: Peer) -> Response<ProxyBody> {
        let (head, body) = request.into_parts();
        let origin = cors::Origin::of(&head.headers);
        if let Some(preflight) = cors::preflight(&head) {
            return preflight;
        }
        let mut answer = self.answer((head, body), peer).await;
        origin.mark(answer.headers_mut());
        answer
    }

    async fn answer(&self, (mut head, body): (Parts, Incoming), peer: Peer) -> Response<ProxyBody> {
        let route = Route::find(&head.method, head.uri.path());
        let names = selector::take(&mut head);
        let selection = match self.select(&names) {
            Ok(selection) => selection,
            Err(error) => {
                let dialect = Dialect::of(head.uri.path());
                let story = self.begin(&head, peer);
                return refuse(dialect, &ProxyError::Selector(error), story);
            }
        };
        let path = head.uri.path();
        let inference = match route {
            Ok(Route::Inference(inference)) => Some(inference),
            Err(NoRoute::Path) if selection.sole().is_none() => Route::beyond(&head.method, path),
            Ok(Route::List(_) | Route::Machine(_)) | Err(_) => None,
        };
        if let Some(inference) = inference {
            let story = self.begin(&head, peer);
            let cancelled = story.cancelled();
            let client = self.client_key(&head.headers, peer);
            let answering = self.infer((inference, client), selection, (head, body), story);
            let answering = pin!(answering);
            return cancel::or_answer(cancelled, inference.dialect, answering).await;
        }
        // Boxed, so that the future of the usual request is small: it is moved with each one.
        match (route, selection.sole()) {
            (_, Some(agent)) => {
                let dialect = Dialect::of(path);
                let ask = self.ask((head, body), peer);
                let cancelled = ask.story.cancelled();
                let mut answering = Box::pin(machines::pass_to(self, agent, ask));
                cancel::or_answer(cancelled, dialect, answering.as_mut()).await
            }
            (Ok(Route::Machine(machine)), None) => {
                let dialect = Dialect::of(path);
                let ask = self.ask((head, body), peer);
                let cancelled = ask.story.cancelled();
                let mut answering = Box::pin(machines::answer(self, machine, &selection, ask));
                cancel::or_answer(cancelled, dialect, answering.as_mut()).await
            }
            (Ok(Route::List(list)), None) => match selection {
                Selection::Any | Selection::All => lists::answer(&self.0.registry, list, path),
                Selection::These(_) => {
                    let (dialect, story) = (Dialect::of(path), self.begin(&head, peer));
                    refuse(dialect, &ProxyError::Aim(AimError::OneAtATime), story)
                }
            },
            (Err(NoRoute::Method(allow)), None) => error::method_not_allowed(allow),
            (Err(NoRoute::Slash), None) => error::moved(&head),
            (Ok(Route::Inference(_)) | Err(NoRoute::Path), None) => {
                error::page_not_found(&head.headers)
            }
        }
    }

    /// Finds the agents that a request names.
    fn select(&self, names: &[String]) -> Result<Selection, SelectorError> {
        if names.is_empty() {
            return Ok(Selection::Any);
        }
        selector::resolve(names, &self.0.registry.snapshot())
    }

    fn begin(&self, head: &Parts, peer: Peer) -> Story {
        let (method, path) = (head.method.as_str(), head.uri.path());
        let client = peer.remote.ip();
        self.0.storybook.begin(method, path, &head.headers, client)
    }

    fn ask(&self, (head, body): (Parts, Incoming), peer: Peer) -> Ask {
        Ask {
            story: self.begin(&head, peer),
            client: self.client_key(&head.headers, peer),
            head,
            body,
        }
    }

    /// Has a model answer.
    async fn infer(
        &self,
        (inference, client): (Inference, u64),
        selection: Selection,
        (head, body): (Parts, Incoming),
        mut story: Story,
    ) -> Response<ProxyBody> {
        let (mut target, unreadable) = match self.read(head, body, client).await {
            Ok(read) => read,
            Err(error) => return refuse(inference.dialect, &error, story),
        };
        target.only = selection.into_agents();
        let is_streamed = target.peek.stream.unwrap_or(inference.streams_by_default);
        story.asks_for(inference.dialect, &target.peek.model, is_streamed);
        let model = &target.peek.model;
        if model.is_empty() || !inference.is_known() && !machines::know(self, model) {
            let otherwise = unreadable.unwrap_or(ProxyError::BadBody("model is required"));
            let asking = machines::ask_any(self, inference, target, &otherwise, story);
            return Box::pin(asking).await;
        }
        let asked = Asked {
            inference,
            target,
            client,
        };
        match self.0.settings.keep_alive {
            Some(every) if is_streamed => {
                let voice = Voice {
                    dialect: inference.dialect,
                    is_chat: asked.target.uri.path() == "/api/chat",
                    model: asked.target.peek.model.clone(),
                };
                let proxy = self.clone();
                let cancelled = story.cancelled();
                let answering: Answering = Box::pin(async move {
                    let answering = pin!(proxy.attempts(asked, story));
                    cancel::or_answer(cancelled, inference.dialect, answering).await
                });
                early::answer_or_begin(answering, voice, every).await
            }
            Some(_) | None => self.attempts(asked, story).await,
        }
    }

    /// Reads a request, and says what it is about or why that cannot be seen.
    async fn read(
        &self,
        head: Parts,
        body: Incoming,
        client: u64,
    ) -> Result<(Target, Option<ProxyError>), ProxyError> {
        if hops::has_passed(&head.headers, self.0.registry.instance_id()) {
            return Err(ProxyError::Loop);
        }
        let prefix = match self.0.balancer.policy() {
            Policy::PrefixAffinity => Prefix::Wanted,
            Policy::LeastLoaded | Policy::RoundRobin | Policy::Weighted => Prefix::Ignored,
        };
        let (body, held) = target::collect(body, &self.0.memory, client).await?;
        let (peek, unreadable) = match Peek::of(&head.headers, &body, prefix) {
            Ok(peek) => (peek, None),
            Err(error) => (Peek::default(), Some(error)),
        };
        let target = Target {
            only: Vec::new(),
            peek,
            method: head.method,
            uri: head.uri,
            headers: forward::headers_for_agents(head.headers, &self.0.hop),
            body,
            held,
        };
        Ok((target, unreadable))
    }

    /// Returns who asks, for fairness: the key that the request carries, else the address.
    fn client_key(&self, headers: &HeaderMap, peer: Peer) -> u64 {
        let key = headers
            .get(header::AUTHORIZATION)
            .or_else(|| headers.get("x-api-key"));
        match key {
            Some(key) => self.0.clients.hash_one(key.as_bytes()),
            None => self.0.clients.hash_one(peer.remote.ip()),
        }
    }
}

/// Tells the client why no agent answers.
fn refuse(dialect: Dialect, error: &ProxyError, story: Story) -> Response<ProxyBody> {
    error.log();
    let (status, message) = (error.status(), error.message());
    let mut answer = error::answer(dialect, status, &message);
    story.describe(answer.headers_mut());
    story.refused(status, error.reason(), &error.to_string());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<'a, F: Future>(_serve: fn(&'a Proxy, Request<Incoming>, Peer) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn future_of_a_request_is_small_because_it_is_moved_with_each() {
        let size = size_of_future(Proxy::serve);

        assert!(size <= 8 * 1024, "{size} bytes");
    }
}
