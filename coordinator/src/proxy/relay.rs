//! Streams the upstream's body to the client; the body owns the permit and ends the story.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::body::BoxError;
use super::cancel;
use super::error::{BROKEN_OFF, LastWord};
use super::forward::Answer;
use super::patience::Patience;
use super::story::Story;
use super::tail::Tail;
use super::upstream::UpstreamBody;
use crate::balancer::permit::{Failure, Outcome, Pace, Permit};

/// An agent's body on its way to the client, watched.
pub struct RelayBody<B = UpstreamBody> {
    first: Option<Frame<Bytes>>,
    /// `None`: it is not waited for any more.
    rest: Option<B>,
    /// How long the upstream may pause.
    idle: Duration,
    patience: Patience,
    /// How to tell the client that nothing more comes; `None`: only the connection can tell.
    last_word: Option<LastWord>,
    /// Whether what was sent so far ends where a line or an event does.
    is_between_messages: bool,
    state: State,
    passed: Passed,
    /// Taken when it has ended, whichever way.
    account: Option<Account>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Streaming,
    /// The last word was sent; the connection ends next, after what was sent has been flushed.
    Told(LastWord),
    Flushed,
    Ended,
}

/// What has passed.
#[derive(Debug)]
struct Passed {
    sent: Instant,
    began: Instant,
    last: Instant,
    bytes: u64,
    chunks: u64,
    tail: Tail,
}

/// Who is told how it went.
#[derive(Debug)]
pub struct Account {
    /// The slot that the answer takes; `None` if the agent has given it back already.
    pub permit: Option<Permit>,
    /// What the answer says of its agent, though it arrives whole.
    pub failure: Option<Failure>,
    /// The request's story.
    pub story: Story,
}

impl RelayBody {
    /// Passes on an answer whose head is on its way to the client.
    pub fn new(
        answer: Answer,
        last_word: Option<LastWord>,
        idle: Duration,
        account: Account,
    ) -> Self {
        let passed = Passed::since(answer.sent, answer.began);
        let ways = (idle, last_word);
        let mut body = Self::watching(answer.first, answer.rest, ways, passed, account);
        if body.is_end_stream() {
            body.end(Outcome::Success);
        }
        body
    }
}

impl<B> RelayBody<B> {
    fn watching(
        first: Option<Frame<Bytes>>,
        rest: B,
        (idle, last_word): (Duration, Option<LastWord>),
        passed: Passed,
        account: Account,
    ) -> Self {
        Self {
            first,
            rest: Some(rest),
            idle,
            patience: Patience::until(passed.began, idle),
            last_word,
            is_between_messages: true,
            state: State::Streaming,
            passed,
            account: Some(account),
        }
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(data) = frame.data_ref()
            && !data.is_empty()
        {
            let now = self.passed.count(data);
            self.patience.restart(now, self.idle);
            if let Some(last_word) = self.last_word {
                self.is_between_messages = data.ends_with(last_word.separator());
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn fail(
        &mut self,
        error: BoxError,
        failure: Failure,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let agent = self.account.as_ref().and_then(|a| a.permit.as_ref());
        let name = agent.map_or("", |permit| &*permit.candidate().name);
        tracing::warn!(
            agent.name = name,
            error = &*error,
            "Agent broke off its answer"
        );
        self.break_off(error, Outcome::Failure(failure), BROKEN_OFF)
    }

    /// Ends the answer, and the work on it, before it is whole.
    fn break_off(
        &mut self,
        error: BoxError,
        outcome: Outcome,
        message: &str,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.end(outcome);
        self.rest = None;
        let Some(last_word) = self.last_word else {
            self.state = State::Ended;
            return Poll::Ready(Some(Err(error)));
        };
        self.state = State::Told(last_word);
        let bytes = last_word.bytes(self.is_between_messages, message);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn poll_cancelled(&self, context: &mut Context<'_>) -> Poll<()> {
        let story = self.account.as_ref().map(|account| &account.story);
        story.map_or(Poll::Pending, |story| story.poll_cancelled(context))
    }

    fn end(&mut self, outcome: Outcome) {
        let Some(account) = self.account.take() else {
            return;
        };
        let Account {
            permit,
            failure,
            story,
        } = account;
        let outcome = match (outcome, failure) {
            (Outcome::Success, Some(failure)) => Outcome::Failure(failure),
            (outcome, _) => outcome,
        };
        let passed = &self.passed;
        if let Some(permit) = permit {
            permit.settle(outcome, Some(passed.pace()));
        }
        story.ended(outcome, passed.bytes, passed.chunks, passed.tail.ends());
    }
}

impl<B> Body for RelayBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
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
            State::Told(LastWord::OpenAiEvent | LastWord::AnthropicEvent) => {
                this.state = State::Flushed;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            State::Flushed => {
                this.state = State::Ended;
                return Poll::Ready(Some(Err("the answer was broken off".into())));
            }
        }
        if this.poll_cancelled(context).is_ready() {
            return this.break_off(cancel::MESSAGE.into(), Outcome::Cancelled, cancel::MESSAGE);
        }
        let next = match (this.first.take(), &mut this.rest) {
            (Some(first), _) => Poll::Ready(Some(Ok(first))),
            (None, Some(rest)) => Pin::new(rest).poll_frame(context),
            (None, None) => Poll::Ready(None),
        };
        match next {
            Poll::Ready(Some(Ok(frame))) => {
                let passed = this.pass(frame);
                if this.rest.as_ref().is_none_or(Body::is_end_stream) {
                    this.end(Outcome::Success);
                }
                passed
            }
            Poll::Ready(Some(Err(error))) => this.fail(error.into(), Failure::Broken),
            Poll::Ready(None) => {
                this.state = State::Ended;
                this.end(Outcome::Success);
                Poll::Ready(None)
            }
            Poll::Pending => {
                ready!(this.patience.poll(context));
                this.fail(
                    "the agent sent nothing for too long".into(),
                    Failure::Stalled,
                )
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Streaming => {
                self.first.is_none() && self.rest.as_ref().is_none_or(Body::is_end_stream)
            }
            State::Ended => true,
            State::Told(_) | State::Flushed => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.as_ref().map(Body::size_hint).unwrap_or_default();
        let first = self.first.as_ref().and_then(Frame::data_ref);
        let first = first.map_or(0, |data| data.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

impl<B> Drop for RelayBody<B> {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

impl Passed {
    fn since(sent: Instant, began: Instant) -> Self {
        Self {
            sent,
            began,
            last: began,
            bytes: 0,
            chunks: 0,
            tail: Tail::default(),
        }
    }

    fn count(&mut self, data: &Bytes) -> Instant {
        self.last = Instant::now();
        self.bytes += data.len() as u64;
        self.chunks += 1;
        self.tail.push(data);
        self.last
    }

    fn pace(&self) -> Pace {
        Pace {
            first_byte: self.began - self.sent,
            chunks: self.chunks.saturating_sub(1),
            streaming: self.last - self.began,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::HeaderMap;
    use futures_util::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use ollama_coordinator_common::id::AgentId;
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::proxy::story::Storybook;
    use crate::registry::agent::{Candidate, Link};

    const ERROR: &str = r#"{"error":"the agent that was answering broke off"}"#;
    const IDLE: Duration = Duration::from_mins(2);

    /// Relays chunks, each after a pause, and then a break; returns what the client gets.
    async fn relayed(chunks: &[(Duration, &'static str)], last_word: Option<LastWord>) -> String {
        let chunks = futures_util::stream::iter(chunks.to_vec()).then(async |(pause, text)| {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(Bytes::from_static(text.as_bytes())))
        });
        let broken = futures_util::stream::iter([Err(BoxError::from("reset"))]);
        let rest = StreamBody::new(Box::pin(chunks.chain(broken)));
        let now = Instant::now();
        let passed = Passed::since(now, now);
        let mut body = RelayBody::watching(None, rest, (IDLE, last_word), passed, account());
        let mut text = String::new();
        while let Some(Ok(frame)) = body.frame().await {
            text.push_str(str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
        text
    }

    fn account() -> Account {
        let permit = Permit::claim(Candidate {
            id: AgentId::new(),
            name: "gpu".into(),
            link: Link::Direct(([127, 0, 0, 1], 9).into()),
            speaks_ollama: true,
            in_flight: Arc::default(),
        });
        let client = [127, 0, 0, 1].into();
        Account {
            permit: Some(permit),
            failure: None,
            story: Storybook::for_tests().begin("POST", "/api/chat", &HeaderMap::new(), client),
        }
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
        #[values(LastWord::OpenAiEvent, LastWord::AnthropicEvent)] last_word: LastWord,
    ) {
        let text = relayed(&[(Duration::ZERO, chunk)], Some(last_word)).await;

        let rest = text.strip_prefix(before).expect(&text);
        let event = match last_word {
            LastWord::AnthropicEvent => "event: error\ndata: {\"",
            LastWord::OpenAiEvent | LastWord::Line => "data: {\"error\":",
        };
        assert!(rest.starts_with(event) && rest.ends_with("}\n\n"), "{text}");
    }

    #[rstest]
    #[case::before_the_next_chunk(&[IDLE], "")]
    #[case::between_two_chunks(&[Duration::ZERO, IDLE], "first\n")]
    #[case::after_many_short_pauses(&[IDLE / 2, IDLE], "first\n")]
    #[tokio::test(start_paused = true)]
    async fn stream_that_pauses_for_too_long_is_given_up(
        #[case] pauses: &[Duration],
        #[case] expected: &str,
    ) {
        let late = pauses.iter().enumerate().map(|(at, pause)| {
            let text = if at == 0 && pauses.len() > 1 {
                "first\n"
            } else {
                "second\n"
            };
            (
                *pause + Duration::from_millis(u64::from(*pause == IDLE)),
                text,
            )
        });
        let late: Vec<_> = late.collect();

        assert_eq!(relayed(&late, None).await, expected);
    }

    proptest! {
        #[test]
        fn however_it_is_cut_a_stream_arrives_whole_and_then_the_error_as_a_message_of_its_own(
            text in "(data: [a-z]{0,6}\n\n|\\{\"a\":[0-9]{1,3}\\}\n){0,6}[a-z]{0,5}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            last_word in prop::sample::select(
                vec![LastWord::Line, LastWord::OpenAiEvent, LastWord::AnthropicEvent],
            ),
        ) {
            let text: &'static str = text.leak();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut rest = text;
            let mut chunks = Vec::new();
            for at in cuts {
                let (chunk, after) = rest.split_at(at - (text.len() - rest.len()));
                chunks.push((Duration::ZERO, chunk));
                rest = after;
            }
            chunks.push((Duration::ZERO, rest));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();

            let sent = runtime.block_on(relayed(&chunks, Some(last_word)));

            let error = sent.strip_prefix(text).expect("every byte came first");
            let separator = str::from_utf8(last_word.separator()).unwrap();
            let message = error.strip_prefix(separator);
            let is_separate = message.is_some() || text.is_empty() || text.ends_with(separator);
            prop_assert!(is_separate, "{sent:?}");
            let message = message.unwrap_or(error).strip_suffix(separator).unwrap();
            prop_assert!(message.contains("error") && !message.contains(separator), "{sent:?}");
        }
    }
}
