//! What a machine serves after it was changed: it is asked before the client hears that the change
//! is done, over the link of its requests, so that the model can be used, or is gone, from then on.
//!
//! An agent's own next look says the same, only later.

use std::time::Duration;

use axum::http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use ollama_coordinator_common::probe::{self, ANSWER_LIMIT};
use tokio::time::timeout;

use super::aim::Contact;
use crate::proxy::Proxy;
use crate::proxy::upstream::{RequestBody, Sending};

/// So long the end of an answer is held up at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks a machine for its models and tells the registry.
pub(super) async fn look(proxy: Proxy, contact: Contact) {
    let asked = timeout(PATIENCE, ask(&proxy, &contact)).await;
    let Ok(Some(tags)) = asked else {
        tracing::debug!(agent.id = %contact.id, "Machine did not say what it serves after a change");
        return;
    };
    if let Some(models) = probe::models_in(&tags) {
        proxy.registry().set_models(contact.id, models);
    }
}

async fn ask(proxy: &Proxy, contact: &Contact) -> Option<bytes::Bytes> {
    let make = || {
        let mut request = Request::new(RequestBody::Whole(Full::default()));
        *request.uri_mut() = Uri::from_static("/api/tags");
        request
    };
    let upstream = proxy.upstream();
    let sending = Sending::Repeatable(&make);
    let answer = upstream.send(contact.link, sending).await;
    let (head, body) = answer.ok()?.into_parts();
    let body = Limited::new(body, ANSWER_LIMIT).collect().await.ok()?;
    head.status.is_success().then(|| body.to_bytes())
}
