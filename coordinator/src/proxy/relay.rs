//! Streams the upstream's body to the client; the body owns the permit.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::error::LastWord;
use super::headers::strip_hop_by_hop;
use super::upstream::{IDLE_TIMEOUT, UpstreamResponse};
use crate::balancer::permit::Permit;

/// Turns an upstream's answer into the client's.
pub fn relay(response: UpstreamResponse, permit: Permit) -> Response<Body> {
    let (mut head, upstream) = response.into_parts();
    strip_hop_by_hop(&mut head.headers);
    let is_sized = head.headers.contains_key(header::CONTENT_LENGTH);
    let last_word = if is_sized {
        None
    } else {
        LastWord::of_stream(&head.headers)
    };
    let body = RelayBody {
        upstream,
        idle: Box::pin(tokio::time::sleep(IDLE_TIMEOUT)),
        last_word,
        is_between_messages: true,
        state: State::Streaming,
        permit,
    };
    Response::from_parts(head, Body::new(body))
}

/// The upstream's body, watched.
struct RelayBody {
    upstream: Incoming,
    idle: Pin<Box<Sleep>>,
    /// What to tell the client if the upstream breaks; `None`: only the connection can tell.
    last_word: Option<LastWord>,
    /// Whether what was sent so far ends where a line or an event does.
    is_between_messages: bool,
    state: State,
    permit: Permit,
}

enum State {
    Streaming,
    /// The last word was sent; the connection ends next, after what was sent has been flushed.
    Told(LastWord),
    Flushed,
    Ended,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl http_body::Body for RelayBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        match this.state {
            State::Streaming => {}
            State::Told(LastWord::Line) | State::Ended => return Poll::Ready(None),
            State::Told(LastWord::Event) => {
                this.state = State::Flushed;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            State::Flushed => {
                this.state = State::Ended;
                return Poll::Ready(Some(Err("the agent broke off its answer".into())));
            }
        }
        let failure: BoxError = match Pin::new(&mut this.upstream).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.idle.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
                if let (Some(last_word), Some(data)) = (this.last_word, frame.data_ref()) {
                    this.is_between_messages = data.ends_with(last_word.separator());
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {
                this.state = State::Ended;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => error.into(),
            Poll::Pending => {
                ready!(this.idle.as_mut().poll(context));
                "the agent sent nothing for too long".into()
            }
        };
        this.fail(failure)
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Streaming => self.upstream.is_end_stream(),
            State::Ended => true,
            State::Told(_) | State::Flushed => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.upstream.size_hint()
    }
}

impl RelayBody {
    fn fail(&mut self, failure: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        tracing::warn!(
            agent.name = &*self.permit.candidate().name,
            error = &*failure,
            "Agent broke off its answer"
        );
        let Some(last_word) = self.last_word else {
            self.state = State::Ended;
            return Poll::Ready(Some(Err(failure)));
        };
        self.state = State::Told(last_word);
        let bytes = last_word.bytes(self.is_between_messages);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}
