//! One machine's answer to one request, both passed on byte for byte.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as AxumBody;
use axum::http::{HeaderValue, Response};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::aim::Contact;
use super::look::look;
use super::upload::{Moved, Upload};
use super::{Errand, Kept, patience};
use crate::proxy::body::{BoxError, ProxyBody};
use crate::proxy::error::{LastWord, ProxyError};
use crate::proxy::forward::{Answer, ForwardError};
use crate::proxy::headers::strip_response;
use crate::proxy::relay::{Account, RelayBody};
use crate::proxy::story::Story;
use crate::proxy::upstream::{RequestBody, SendError, Sending};
use crate::proxy::{AGENT_HEADER, Proxy, refuse};

/// Passes a request on while its body still arrives.
pub async fn stream(
    proxy: &Proxy,
    contact: &Contact,
    errand: Errand,
    body: Incoming,
    story: Story,
) -> Response<ProxyBody> {
    let moved = Moved::now();
    let body = RequestBody::Passing(Upload::new(body, moved.clone()));
    let request = Box::new(errand.request(body));
    match send(proxy, contact, Sending::Once(request), &moved).await {
        Ok(answer) => relay(proxy, contact, &errand, answer, story).await,
        Err(error) => refuse(errand.dialect, &error, story),
    }
}

/// Passes a request on to the first of some machines that can be connected to.
pub async fn whole(
    proxy: &Proxy,
    contacts: &[Contact],
    errand: Errand,
    (body, _held): Kept,
    story: Story,
) -> Response<ProxyBody> {
    let mut failed = None;
    for contact in contacts {
        let make = || errand.request_with(&body);
        let sending = if errand.is_repeatable {
            Sending::Repeatable(&make)
        } else {
            Sending::Once(Box::new(make()))
        };
        match send(proxy, contact, sending, &Moved::now()).await {
            Ok(answer) => return relay(proxy, contact, &errand, answer, story).await,
            Err(error @ ProxyError::NotReached(_)) => failed = Some(error),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let error = failed.expect("one machine at least was to be asked");
    refuse(errand.dialect, &error, story)
}

/// Sends a request and waits for the head of the answer, for as long as the request's body moves.
pub(super) async fn send(
    proxy: &Proxy,
    contact: &Contact,
    sending: Sending<'_>,
    moved: &Moved,
) -> Result<Answer, ProxyError> {
    let patience = patience(proxy);
    let sent = Instant::now();
    let answered = tokio::select! {
        answered = proxy.0.upstream.send(contact.link, sending) => answered,
        () = moved.stalled(patience) => {
            return Err(ProxyError::Failed(ForwardError::Silent(patience)));
        }
    };
    match answered {
        Ok(answer) => {
            let (head, rest) = answer.into_parts();
            let began = Instant::now();
            Ok(Answer {
                head,
                first: None,
                rest,
                sent,
                began,
            })
        }
        Err(error @ SendError::NotConnected(..)) => {
            proxy.registry().doubt_reach(contact.id);
            Err(ProxyError::NotReached(error))
        }
        Err(SendError::Broken(error)) => Err(ProxyError::Failed(ForwardError::Broken(error))),
    }
}

async fn relay(
    proxy: &Proxy,
    contact: &Contact,
    errand: &Errand,
    mut answer: Answer,
    mut story: Story,
) -> Response<ProxyBody> {
    story.answered(answer.head.status, None);
    let last_word = LastWord::of_stream(&answer.head.headers, errand.dialect);
    let mut response = Response::new(ProxyBody::Whole(None));
    *response.status_mut() = answer.head.status;
    let headers = response.headers_mut();
    *headers = std::mem::take(&mut answer.head.headers);
    strip_response(headers);
    let agent = HeaderValue::from_str(&contact.id.to_string());
    headers.insert(AGENT_HEADER, agent.expect("a UUID is a header value"));
    story.describe(headers);
    let account = Account {
        permit: None,
        failure: None,
        story,
    };
    let body = RelayBody::new(answer, last_word, patience(proxy), account);
    *response.body_mut() = ProxyBody::Relay(Box::new(body));
    if errand.changes_models && response.status().is_success() {
        followed_by(look(proxy.clone(), contact.clone()), response).await
    } else {
        response
    }
}

/// Has something done before the client gets the end of an answer.
async fn followed_by(
    then: impl Future<Output = ()> + Send + 'static,
    answer: Response<ProxyBody>,
) -> Response<ProxyBody> {
    if answer.body().is_end_stream() {
        then.await;
        return answer;
    }
    answer.map(|body| {
        ProxyBody::Other(AxumBody::new(Followed {
            body,
            then: Some(Box::pin(then)),
            has_ended: false,
            last: None,
        }))
    })
}

/// A body whose last frame waits until something else is done.
struct Followed {
    body: ProxyBody,
    then: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    has_ended: bool,
    /// The frame that is held back.
    last: Option<Result<Frame<Bytes>, BoxError>>,
}

impl Body for Followed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if !this.has_ended {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) if !this.body.is_end_stream() => {
                    return Poll::Ready(Some(Ok(frame)));
                }
                last => (this.last, this.has_ended) = (last, true),
            }
        }
        if let Some(then) = &mut this.then {
            ready!(then.as_mut().poll(context));
            this.then = None;
        }
        Poll::Ready(this.last.take())
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended && self.then.is_none() && self.last.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
