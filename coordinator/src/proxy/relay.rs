//! Streams the upstream's body to the client; the body owns the permit.

use std::error::Error;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::error::LastWord;
use super::headers::strip_response;
use super::story::Story;
use super::upstream::{FIRST_BYTE_TIMEOUT, IDLE_TIMEOUT, UpstreamResponse};
use crate::balancer::permit::{Failure, Outcome, Permit};

/// Turns an upstream's answer into the client's.
pub fn relay(response: UpstreamResponse, permit: Permit, story: Option<Story>) -> Response<Body> {
    let (mut head, upstream) = response.into_parts();
    strip_response(&mut head.headers);
    let is_sized = head.headers.contains_key(header::CONTENT_LENGTH);
    let last_word = if is_sized {
        None
    } else {
        LastWord::of_stream(&head.headers)
    };
    let mut body = RelayBody::new(upstream, last_word, permit);
    body.teller.story = story;
    body.teller.status = head.status;
    Response::from_parts(head, Body::new(body))
}

/// The upstream's body, watched.
struct RelayBody<B> {
    upstream: B,
    /// Some servers send the head of an answer at once and load the model then.
    idle: Pin<Box<Sleep>>,
    /// What to tell the client if the upstream breaks; `None`: only the connection can tell.
    last_word: Option<LastWord>,
    /// Whether what was sent so far ends where a line or an event does.
    is_between_messages: bool,
    state: State,
    permit: Permit,
    teller: Teller,
}

/// Tells the story of the answer.
#[derive(Default)]
struct Teller {
    story: Option<Story>,
    status: StatusCode,
    bytes: u64,
    chunks: u64,
    tail: Vec<Bytes>,
}

/// How many of the last chunks are kept.
const TAIL_CHUNKS: usize = 4;

impl Teller {
    fn chunk(&mut self, chunk: &Bytes) {
        if self.chunks == 0
            && let Some(story) = &mut self.story
        {
            story.answered(self.status);
        }
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
        if self.tail.len() == TAIL_CHUNKS {
            self.tail.remove(0);
        }
        self.tail.push(chunk.clone());
    }

    fn end(&mut self, outcome: Outcome) {
        if let Some(story) = self.story.take() {
            story.ended(outcome, self.bytes, self.chunks, &self.tail);
        }
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

enum State {
    Streaming,
    /// The last word was sent; the connection ends next, after what was sent has been flushed.
    Told(LastWord),
    Flushed,
    Ended,
}

type BoxError = Box<dyn Error + Send + Sync>;

impl<B> http_body::Body for RelayBody<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
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
                if let Some(data) = frame.data_ref() {
                    this.teller.chunk(data);
                }
                if this.upstream.is_end_stream() {
                    this.teller.end(Outcome::Success);
                }
                if let (Some(last_word), Some(data)) = (this.last_word, frame.data_ref())
                    && !data.is_empty()
                {
                    this.is_between_messages = data.ends_with(last_word.separator());
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Poll::Ready(None) => {
                this.state = State::Ended;
                this.teller.end(Outcome::Success);
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

impl<B> RelayBody<B> {
    fn new(upstream: B, last_word: Option<LastWord>, permit: Permit) -> Self {
        Self {
            upstream,
            idle: Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)),
            last_word,
            is_between_messages: true,
            state: State::Streaming,
            permit,
            teller: Teller::default(),
        }
    }

    fn fail(&mut self, failure: BoxError) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        tracing::warn!(
            agent.name = &*self.permit.candidate().name,
            error = &*failure,
            "Agent broke off its answer"
        );
        self.teller.end(Outcome::Failure(Failure::Broken));
        let Some(last_word) = self.last_word else {
            self.state = State::Ended;
            return Poll::Ready(Some(Err(failure)));
        };
        self.state = State::Told(last_word);
        let bytes = last_word.bytes(self.is_between_messages);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use ollama_coordinator_common::id::AgentId;
    use rstest::rstest;

    use super::*;
    use crate::registry::agent::{Candidate, Link};

    const ERROR: &str = r#"{"error":"the agent that was answering broke off"}"#;

    /// Relays chunks, each after a pause, and then a break; returns what the client gets.
    async fn relayed(chunks: &[(Duration, &'static str)], last_word: Option<LastWord>) -> String {
        let chunks = futures_util::stream::iter(chunks.to_vec()).then(async |(pause, text)| {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(Bytes::from_static(text.as_bytes())))
        });
        let broken = futures_util::stream::iter([Err(BoxError::from("reset"))]);
        let upstream = StreamBody::new(Box::pin(chunks.chain(broken)));
        let mut body = RelayBody::new(upstream, last_word, permit());
        let mut text = String::new();
        while let Some(Ok(frame)) = body.frame().await {
            text.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        text
    }

    fn permit() -> Permit {
        Permit::claim(Candidate {
            id: AgentId::new(),
            name: "gpu".into(),
            link: Link::Direct(([127, 0, 0, 1], 9).into()),
            speaks_ollama: true,
            in_flight: Arc::default(),
        })
    }

    #[rstest]
    #[case::whole_line(&["{\"a\":1}\n"], "{\"a\":1}\n")]
    #[case::half_a_line(&["{\"a\":1}\n", "{\"b"], "{\"a\":1}\n{\"b\n")]
    #[case::nothing_after_the_line(&["{\"a\":1}\n", ""], "{\"a\":1}\n")]
    #[case::nothing_at_all(&[], "")]
    #[tokio::test]
    async fn error_of_a_broken_stream_has_a_line_of_its_own(
        #[case] chunks: &[&'static str],
        #[case] before: &str,
    ) {
        let chunks: Vec<_> = chunks.iter().map(|text| (Duration::ZERO, *text)).collect();

        let text = relayed(&chunks, Some(LastWord::Line)).await;

        assert_eq!(text, format!("{before}{ERROR}\n"));
    }

    #[rstest]
    #[case::whole_event("data: 1\n\n", "data: 1\n\n")]
    #[case::half_an_event("data: 1", "data: 1\n\n")]
    #[case::open_event("data: 1\n", "data: 1\n\n\n")]
    #[tokio::test]
    async fn error_of_a_broken_stream_is_an_event_of_its_own(
        #[case] chunk: &'static str,
        #[case] before: &str,
    ) {
        let text = relayed(&[(Duration::ZERO, chunk)], Some(LastWord::Event)).await;

        let rest = text.strip_prefix(before).expect(&text);
        assert!(
            rest.starts_with("data: {\"error\":") && rest.ends_with("}\n\n"),
            "{text}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn first_chunk_may_take_as_long_as_loading_a_model() {
        let late = (FIRST_BYTE_TIMEOUT.mul_f64(0.9), "first\n");

        assert!(relayed(&[late], None).await.contains("first"));
    }

    #[rstest]
    #[case::before_the_first_chunk(FIRST_BYTE_TIMEOUT, Duration::ZERO, "")]
    #[case::between_two_chunks(Duration::ZERO, IDLE_TIMEOUT, "first\n")]
    #[tokio::test(start_paused = true)]
    async fn stream_that_pauses_for_too_long_is_given_up(
        #[case] first: Duration,
        #[case] second: Duration,
        #[case] expected: &str,
    ) {
        let chunks = [(first, "first\n"), (second, "second\n")];
        let late = chunks.map(|(pause, text)| (pause + Duration::from_secs(1), text));

        assert_eq!(relayed(&late, None).await, expected);
    }
}
