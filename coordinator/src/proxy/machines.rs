//! Requests to machines rather than to models: shown, changed, or passed on because the client said
//! to whom. No slot is taken for them.
//!
//! [`aim`] decides who is asked, [`pass`] passes a request on to one machine byte for byte, [`each`]
//! has several do it and tells what each of them said. [`look`] finds out what a machine serves after
//! that. [`upload`] is a body on its way, however long.

use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use ollama_coordinator_common::id::AgentId;
use serde_json::{Map, Value, json};

use super::body::ProxyBody;
use super::error::{self, Dialect, ProxyError};
use super::peek::{Peek, Prefix};
use super::route::{Inference, Machine, Route};
use super::selector::Selection;
use super::story::Story;
use super::target::{self, HeldMemory, Target};
use super::upstream::RequestBody;
use super::{Proxy, forward, hops, refuse};
use crate::balancer::permit::Outcome;
use aim::{Aim, AimError};

pub mod aim;
pub mod each;
mod look;
pub mod pass;
pub mod upload;

/// A request as it came, and its story.
pub struct Ask {
    /// Its head.
    pub head: Parts,
    /// Its body.
    pub body: Incoming,
    /// Who asks.
    pub client: u64,
    /// Its story.
    pub story: Story,
}

/// What all machines that are asked get, but for the body.
#[derive(Debug)]
pub struct Errand {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    dialect: Dialect,
    changes_models: bool,
    is_repeatable: bool,
}

/// A body that is passed on or was read.
enum Arrived {
    Passing(Incoming),
    Whole(Kept),
}

/// A body that was read, and the memory that it takes.
type Kept = (Bytes, HeldMemory);

/// Has the machines answer that the request is meant for.
pub async fn answer(
    proxy: &Proxy,
    machine: Machine,
    selection: &Selection,
    ask: Ask,
) -> Response<ProxyBody> {
    let Ask {
        head,
        body,
        client,
        story,
    } = ask;
    let dialect = Dialect::of(head.uri.path());
    let errand = match Errand::new(proxy, &head, machine.is_change()) {
        Ok(errand) => errand,
        Err(error) => return refuse(dialect, &error, story),
    };
    let asked = (&head.headers, body, client);
    let (aimed, body) = match find(proxy, machine, selection, asked).await {
        Ok(found) => found,
        Err(error) => return refuse(dialect, &error, story),
    };
    let aimed = match (machine, aimed) {
        (Machine::Status, Ok(Aim::FirstOf(contacts))) if contacts.len() > 1 => {
            return status(story);
        }
        (Machine::Status, Err(AimError::Nobody)) => return status(story),
        (_, Ok(aimed)) => aimed,
        (_, Err(error)) => return refuse(dialect, &ProxyError::Aim(error), story),
    };
    match (aimed, body) {
        (Aim::FirstOf(contacts) | Aim::Each(contacts), Arrived::Passing(body))
            if contacts.len() == 1 =>
        {
            pass::stream(proxy, &contacts[0], errand, body, story).await
        }
        (aimed, body) => {
            let body = match body {
                Arrived::Whole(body) => Ok(body),
                Arrived::Passing(body) => target::collect(body, &proxy.0.memory, client).await,
            };
            match (aimed, body) {
                (_, Err(error)) => refuse(dialect, &error, story),
                (Aim::Each(contacts), Ok(body)) if contacts.len() > 1 => {
                    each::ask(proxy, machine, contacts, (errand, body), story).await
                }
                (Aim::FirstOf(contacts) | Aim::Each(contacts), Ok(body)) => {
                    pass::whole(proxy, &contacts, errand, body, story).await
                }
            }
        }
    }
}

/// Passes a request on to the one agent that it names.
pub async fn pass_to(proxy: &Proxy, agent: AgentId, ask: Ask) -> Response<ProxyBody> {
    let Ask {
        head, body, story, ..
    } = ask;
    let dialect = Dialect::of(head.uri.path());
    let is_change = head.method != Method::GET && head.method != Method::HEAD;
    let contact = match proxy.registry().get(agent) {
        Some(agent) => aim::reached(&agent),
        None => Err(AimError::Away(agent.to_string())),
    };
    let errand = Errand::new(proxy, &head, is_change);
    match (contact.map_err(ProxyError::Aim), errand) {
        (Ok(contact), Ok(errand)) => pass::stream(proxy, &contact, errand, body, story).await,
        (Err(error), _) | (_, Err(error)) => refuse(dialect, &error, story),
    }
}

/// Returns whether any agent, routable or not, has a model.
pub fn know(proxy: &Proxy, model: &str) -> bool {
    let agents = proxy.registry().snapshot();
    agents.iter().any(|agent| agent.has_model(model))
}

/// Has some agent say what it thinks of a request that names no model, once and without a slot.
///
/// `otherwise` is said when there is none.
pub async fn ask_any(
    proxy: &Proxy,
    inference: Inference,
    target: Target,
    otherwise: &ProxyError,
    story: Story,
) -> Response<ProxyBody> {
    let agents = proxy.registry().snapshot();
    let contacts = aim::any(&agents, inference, &target.only);
    // Who does not know the path knows it of one machine only: that it is that machine's.
    if !inference.is_known() && contacts.len() != 1 {
        story.refused(StatusCode::NOT_FOUND, "no_such_path", "404 page not found");
        return error::page_not_found(&target.headers);
    }
    if contacts.is_empty() {
        return refuse(inference.dialect, otherwise, story);
    }
    let errand = Errand {
        method: target.method,
        uri: target.uri,
        headers: target.headers,
        dialect: inference.dialect,
        changes_models: false,
        is_repeatable: false,
    };
    pass::whole(proxy, &contacts, errand, (target.body, target.held), story).await
}

/// Finds out who is asked, reading the body if it has to say so.
async fn find(
    proxy: &Proxy,
    machine: Machine,
    selection: &Selection,
    (headers, body, client): (&HeaderMap, Incoming, u64),
) -> Result<(Result<Aim, AimError>, Arrived), ProxyError> {
    let (body, model) = if machine.needs_model() && *selection == Selection::Any {
        let body = target::collect(body, &proxy.0.memory, client).await?;
        let model = model_of(machine, headers, &body.0);
        (Arrived::Whole(body), model)
    } else {
        (Arrived::Passing(body), None)
    };
    let agents = proxy.registry().snapshot();
    let aimed = aim::aim(machine, selection, model.as_deref(), &agents);
    Ok((aimed, body))
}

/// Returns the model that the request is about.
fn model_of(machine: Machine, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let model = if machine == Machine::Copy {
        let fields = serde_json::from_slice::<Map<String, Value>>(body).ok()?;
        let mut fields = fields.into_iter();
        let source = fields.find(|(name, _)| name.eq_ignore_ascii_case("source"));
        source?.1.as_str()?.to_owned()
    } else {
        Peek::of(headers, body, Prefix::Ignored).ok()?.model
    };
    (!model.is_empty()).then_some(model)
}

/// Says of the cloud what holds for a fleet: what each machine thinks of it is that machine's.
fn status(mut story: Story) -> Response<ProxyBody> {
    let body = json!({ "cloud": { "disabled": false, "source": "none" } });
    story.answered(StatusCode::OK, None);
    story.ended(Outcome::Success, 0, 0, [b"", b""]);
    json_answer(StatusCode::OK, body.to_string())
}

fn json_answer(status: StatusCode, body: String) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::whole(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl Errand {
    fn new(proxy: &Proxy, head: &Parts, is_change: bool) -> Result<Self, ProxyError> {
        if hops::has_passed(&head.headers, proxy.registry().instance_id()) {
            return Err(ProxyError::Loop);
        }
        Ok(Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            headers: forward::headers_for_agents(head.headers.clone(), &proxy.0.hop),
            dialect: Dialect::of(head.uri.path()),
            changes_models: match Route::find(&head.method, head.uri.path()) {
                Ok(Route::Machine(machine)) => machine.changes_models(),
                Ok(Route::Inference(_) | Route::List(_)) | Err(_) => false,
            },
            is_repeatable: !is_change,
        })
    }

    fn request(&self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        request
    }

    fn request_with(&self, body: &Bytes) -> Request<RequestBody> {
        self.request(RequestBody::Whole(Full::new(body.clone())))
    }
}

/// Returns how long a machine may be silent: while it verifies what it has pulled it says nothing.
fn patience(proxy: &Proxy) -> Duration {
    let settings = &proxy.0.settings;
    settings.first_byte_timeout.max(settings.idle_timeout)
}
