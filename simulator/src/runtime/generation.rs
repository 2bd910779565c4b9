//! One answer, token by token, at the pace of the script.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::engine::{Seat, slowed};
use super::script::{DoneReason, FailureMode, RuntimeScript};
use super::words::Sequence;

/// One answer on its way, token by token.
#[derive(Debug)]
pub(super) struct Generation {
    seat: Seat,
    script: Arc<RuntimeScript>,
    words: Sequence,
    length: u64,
    done_reason: DoneReason,
    prompt_tokens: u64,
    started: Instant,
    sent: u64,
}

/// What a generation brings next.
#[derive(Debug)]
pub(super) enum Step {
    /// The next piece of text.
    Token(String),
    /// The whole text was sent.
    Done(Usage),
    /// The script wants an error here.
    Broken,
}

/// What an answer cost, for the last message of each protocol.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    pub(super) done_reason: DoneReason,
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
        let (length, done_reason) = script.answer_length(&words, limit);
        Self {
            length,
            done_reason,
            words,
            prompt_tokens: prompt.split_whitespace().count() as u64,
            started: Instant::now(),
            sent: 0,
            seat,
            script,
        }
    }

    /// Waits until the next token is due and returns it.
    pub(super) async fn next_step(&mut self) -> Step {
        if let FailureMode::ErrorLine { after_tokens } = self.script.failure
            && self.sent >= u64::from(after_tokens)
        {
            return Step::Broken;
        }
        if self.sent == self.length {
            return Step::Done(self.usage());
        }
        let due = self.started + self.due_after(self.sent);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        let space = if self.sent == 0 { "" } else { " " };
        self.sent += 1;
        Step::Token(format!("{space}{}", self.words.next_word()))
    }

    /// Runs to the end; `None` when the script wants an error.
    pub(super) async fn collect(&mut self) -> Option<(String, Usage)> {
        let mut text = String::new();
        loop {
            match self.next_step().await {
                Step::Token(token) => text.push_str(&token),
                Step::Done(usage) => return Some((text, usage)),
                Step::Broken => return None,
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
            total,
            load,
            prompt_eval,
            eval: self.started.elapsed().saturating_sub(prompt_eval),
            prompt_tokens: self.prompt_tokens,
            tokens: self.sent,
        }
    }
}
