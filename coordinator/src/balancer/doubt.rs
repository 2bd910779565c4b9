//! Whether an agent may not be there any more, though nothing has failed: then others are asked first. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Within this time an agent is expected to begin an answer of a model that it has in memory.
const SILENT: Duration = Duration::from_secs(30);

/// What raises doubts about an agent.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Its heartbeats are missing.
    pub(super) is_suspect: bool,
    /// Requests of models in memory of which no byte was answered yet.
    unanswered: u32,
    /// Since when it owes one of them a byte and has not begun any answer.
    silent_since: Option<Instant>,
    /// It was silent until those who had asked gave up.
    until: Option<Instant>,
}

impl Doubt {
    /// Notes a request of a model that it has in memory.
    pub(super) fn asked(&mut self, now: Instant) {
        self.unanswered += 1;
        self.silent_since.get_or_insert(now);
    }

    /// Notes the first byte of an answer to one of these requests.
    pub(super) fn answered(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.silent_since = (self.unanswered > 0).then_some(now);
        self.until = None;
    }

    /// Notes that one of these requests ended without an answer. If it was the last one, doubts stay
    /// for as long as the silence lasted: then the next request shows.
    pub(super) fn gave_up(&mut self, now: Instant) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered == 0
            && let Some(since) = self.silent_since.take()
        {
            let silence = now.saturating_duration_since(since);
            if silence >= SILENT {
                self.until = Some(now + silence);
            }
        }
    }

    /// Returns whether others should be asked first.
    pub(super) fn is_raised(&self, now: Instant) -> bool {
        let is_silent = |since| now.saturating_duration_since(since) >= SILENT;
        self.is_suspect
            || self.silent_since.is_some_and(is_silent)
            || self.until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
impl Doubt {
    pub(super) fn unanswered(&self) -> u32 {
        self.unanswered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn agent_is_doubted_while_it_owes_somebody_a_byte_for_long() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        assert!(!doubt.is_raised(now + SECOND * 1_000));

        doubt.asked(now);
        doubt.asked(now + SECOND * 10);

        assert!(!doubt.is_raised(now + SECOND * 29));
        assert!(doubt.is_raised(now + SECOND * 30));
        doubt.answered(now + SECOND * 40);
        assert!(!doubt.is_raised(now + SECOND * 69), "it works on the other");
        assert!(doubt.is_raised(now + SECOND * 70));
        doubt.answered(now + SECOND * 80);
        assert!(!doubt.is_raised(now + SECOND * 1_000));
    }

    #[test]
    fn silence_until_all_gave_up_is_remembered_for_as_long_as_it_lasted() {
        let now = Instant::now();
        let mut doubt = Doubt::default();
        doubt.asked(now);
        doubt.gave_up(now + SECOND * 29);
        assert!(!doubt.is_raised(now + SECOND * 29), "that was no silence");

        doubt.asked(now);
        doubt.asked(now);
        doubt.gave_up(now + SECOND * 35);
        doubt.gave_up(now + SECOND * 40);

        assert!(doubt.is_raised(now + SECOND * 79));
        assert!(!doubt.is_raised(now + SECOND * 80));
        doubt.asked(now + SECOND * 50);
        doubt.answered(now + SECOND * 51);
        assert!(!doubt.is_raised(now + SECOND * 51));
    }
}
