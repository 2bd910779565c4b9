//! One answer, token by token, at the pace of the script.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::engine::{Seat, slowed};
use super::script::{DoneReason, FailureMode, RuntimeScript};
use super::tools::ToolCall;
use super::words::Sequence;

/// How many words a model thinks before it answers.
const THOUGHTS: u64 = 6;

/// One answer on its way, token by token.
#[derive(Debug)]
pub(super) struct Generation {
    seat: Seat,
    script: Arc<RuntimeScript>,
    /// The words that are not said aloud, and how many are left of them.
    thoughts: (Sequence, u64),
    call: Option<ToolCall>,
    words: Sequence,
    /// Words that are still to come.
    left: u64,
    done_reason: DoneReason,
    prompt_tokens: u64,
    started: Instant,
    /// Thoughts, calls and words so far.
    sent: u64,
    spoke: bool,
    called: bool,
}

/// What a generation brings next.
#[derive(Debug)]
pub(super) enum Step {
    /// The next piece of what the model thinks before it answers.
    Thought(String),
    /// The next piece of text.
    Token(String),
    /// The call of a tool, in place of any text.
    Call(ToolCall),
    /// The whole text was sent.
    Done(Usage),
    /// The script wants an error here.
    Broken,
}

/// An answer in one piece.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) thoughts: String,
    pub(super) text: String,
    pub(super) call: Option<ToolCall>,
    pub(super) usage: Usage,
}

/// What an answer cost, for the last message of each protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) done_reason: DoneReason,
    /// Whether a tool was called.
    pub(super) called: bool,
    pub(super) total: Duration,
    pub(super) load: Duration,
    pub(super) prompt_eval: Duration,
    pub(super) eval: Duration,
    pub(super) prompt_tokens: u64,
    pub(super) tokens: u64,
}

impl Generation {
    pub(super) fn new(
        seat: Seat,
        script: Arc<RuntimeScript>,
        prompt: &str,
        limit: Option<NonZeroU32>,
    ) -> Self {
        let words = Sequence::new(script.seed, &seat.model, prompt);
        let (left, done_reason) = script.answer_length(&words, limit);
        Self {
            thoughts: (words.aside(), 0),
            call: None,
            words,
            left,
            done_reason,
            prompt_tokens: prompt.split_whitespace().count() as u64,
            started: Instant::now(),
            sent: 0,
            spoke: false,
            called: false,
            seat,
            script,
        }
    }

    pub(super) fn prompt_tokens(&self) -> u64 {
        self.prompt_tokens
    }

    pub(super) fn with_thoughts(mut self, thinks: bool) -> Self {
        self.thoughts.1 = if thinks { THOUGHTS } else { 0 };
        self
    }

    /// Makes the call take the place of the words.
    pub(super) fn with_call(mut self, call: Option<ToolCall>) -> Self {
        if call.is_some() {
            (self.left, self.done_reason, self.called) = (0, DoneReason::Stop, true);
        }
        self.call = call;
        self
    }

    /// Waits until the next token is due and returns it.
    pub(super) async fn next_step(&mut self) -> Step {
        if let FailureMode::ErrorLine { after_tokens } = self.script.failure
            && self.sent >= u64::from(after_tokens)
        {
            return Step::Broken;
        }
        if self.thoughts.1 == 0 && self.call.is_none() && self.left == 0 {
            return Step::Done(self.usage());
        }
        let due = self.started + self.due_after(self.sent);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        self.sent += 1;
        if self.thoughts.1 > 0 {
            self.thoughts.1 -= 1;
            let end = if self.thoughts.1 == 0 { "." } else { " " };
            return Step::Thought(format!("{}{end}", self.thoughts.0.next_word()));
        }
        if let Some(call) = self.call.take() {
            return Step::Call(call);
        }
        let space = if self.spoke { " " } else { "" };
        (self.spoke, self.left) = (true, self.left - 1);
        Step::Token(format!("{space}{}", self.words.next_word()))
    }

    /// Runs to the end; `None` when the script wants an error.
    pub(super) async fn collect(&mut self) -> Option<Whole> {
        let (mut thoughts, mut text, mut call) = (String::new(), String::new(), None);
        loop {
            match self.next_step().await {
                Step::Thought(thought) => thoughts.push_str(&thought),
                Step::Token(token) => text.push_str(&token),
                Step::Call(made) => call = Some(made),
                Step::Broken => return None,
                Step::Done(usage) => {
                    return Some(Whole {
                        thoughts,
                        text,
                        call,
                        usage,
                    });
                }
            }
        }
    }

    fn due_after(&self, token: u64) -> Duration {
        let pace = self
            .script
            .tokens_per_second
            .map_or(Duration::ZERO, |rate| {
                Duration::from_nanos(token.saturating_mul(1_000_000_000) / u64::from(rate.get()))
            });
        slowed(self.script.first_token_delay + pace, &self.script)
    }

    fn usage(&self) -> Usage {
        let prompt_eval = slowed(self.script.first_token_delay, &self.script);
        let (total, load) = self.seat.durations();
        Usage {
            done_reason: self.done_reason,
            called: self.called,
            total,
            load,
            prompt_eval,
            eval: self.started.elapsed().saturating_sub(prompt_eval),
            prompt_tokens: self.prompt_tokens,
            tokens: self.sent,
        }
    }
}
