//! An answer that begins before there is one: signs of life for a client that waits for its turn
//! or for a model to load, in its protocol's own way.
//!
//! Clients and proxies between give up on connections that say nothing. The price: once something
//! was sent, an error can only be told inside the stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use chrono::Utc;
use http_body::{Body as _, Frame};
use serde_json::json;
use tokio::time::{Instant, Sleep};

use super::body::{BoxError, ProxyBody};
use super::error::{Dialect, LastWord};

/// The most bytes of an error's body that are passed on.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Response<ProxyBody>> + Send>>;

/// Signs of life, then the answer.
pub struct EarlyBody {
    state: State,
    voice: Voice,
    every: Duration,
    next: Pin<Box<Sleep>>,
}

enum State {
    Waiting(Answering),
    Passing(ProxyBody),
    /// An error's status and body, of which the stream's last message is made.
    Collecting(StatusCode, ProxyBody, Vec<u8>),
    Ended,
}

/// How to speak to the client.
#[derive(Debug, Clone)]
pub struct Voice {
    /// Its protocol.
    pub dialect: Dialect,
    /// Its path, which decides the form of Ollama's messages.
    pub is_chat: bool,
    /// The model it asked for, as it wrote it.
    pub model: String,
}

/// Waits for the answer; if that takes longer than `every`, begins one with signs of life.
pub async fn answer_or_begin(
    mut answering: Answering,
    voice: Voice,
    every: Duration,
) -> Response<ProxyBody> {
    tokio::select! {
        biased;
        answer = &mut answering => return answer,
        () = tokio::time::sleep(every) => {}
    }
    let content_type = match voice.dialect {
        Dialect::Ollama => "application/x-ndjson",
        Dialect::OpenAi | Dialect::Anthropic => "text/event-stream",
    };
    let body = EarlyBody {
        state: State::Waiting(answering),
        voice,
        every,
        next: Box::pin(tokio::time::sleep(Duration::ZERO)),
    };
    let mut response = Response::new(ProxyBody::Early(Box::new(body)));
    let content_type = HeaderValue::from_static(content_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

impl Voice {
    fn sign_of_life(&self) -> String {
        let message = match self.dialect {
            Dialect::OpenAi => return ": still waiting for a machine\n\n".to_owned(),
            Dialect::Anthropic => return "event: ping\ndata: {\"type\": \"ping\"}\n\n".to_owned(),
            Dialect::Ollama if self.is_chat => json!({
                "model": self.model, "created_at": Utc::now(), "done": false,
                "message": { "role": "assistant", "content": "" },
            }),
            Dialect::Ollama => json!({
                "model": self.model, "created_at": Utc::now(), "done": false, "response": "",
            }),
        };
        format!("{message}\n")
    }

    fn last_word(&self) -> LastWord {
        match self.dialect {
            Dialect::Ollama => LastWord::Line,
            Dialect::OpenAi => LastWord::OpenAiEvent,
            Dialect::Anthropic => LastWord::AnthropicEvent,
        }
    }
}

impl EarlyBody {
    /// Returns whether nothing follows.
    pub fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Waiting(_) | State::Collecting(..) => false,
            State::Passing(body) => body.is_end_stream(),
            State::Ended => true,
        }
    }

    /// Takes the next piece.
    pub fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            match &mut self.state {
                State::Waiting(answering) => match answering.as_mut().poll(context) {
                    Poll::Ready(answer) => {
                        let status = answer.status();
                        let body = answer.into_body();
                        self.state = if status.is_success() {
                            State::Passing(body)
                        } else {
                            State::Collecting(status, body, Vec::new())
                        };
                    }
                    Poll::Pending => return self.poll_sign_of_life(context),
                },
                State::Passing(body) => return Pin::new(body).poll_frame(context),
                State::Collecting(status, body, collected) => {
                    let frame = std::task::ready!(Pin::new(body).poll_frame(context));
                    if let Some(Ok(frame)) = frame {
                        let data = frame.into_data().unwrap_or_default();
                        if collected.len() + data.len() <= MAX_ERROR_BYTES {
                            collected.extend_from_slice(&data);
                            continue;
                        }
                    }
                    let error = self.voice.dialect.retold(*status, collected);
                    let last = self.voice.last_word().framed(&error.to_string());
                    self.state = State::Ended;
                    return Poll::Ready(Some(Ok(Frame::data(last.into()))));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn poll_sign_of_life(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        std::task::ready!(self.next.as_mut().poll(context));
        self.next.as_mut().reset(Instant::now() + self.every);
        let sign = Bytes::from(self.voice.sign_of_life());
        Poll::Ready(Some(Ok(Frame::data(sign))))
    }
}
