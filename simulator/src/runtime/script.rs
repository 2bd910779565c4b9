//! What a scripted runtime serves, how fast, and how it fails.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use http::StatusCode;
use ollama_coordinator_common::protocol::runtime::{Model, ModelDetails};

use super::words::Sequence;

const GIB: u64 = 1 << 30;

/// The behaviour of one scripted runtime. All of it but `slots` may change while it runs.
#[derive(Debug, Clone)]
pub struct RuntimeScript {
    /// Names this runtime in its logs and in the `x-simulated-runtime` header of its answers.
    pub label: String,
    /// What `/api/version` says.
    pub version: String,
    /// What it can serve; names carry their tag.
    pub models: Vec<Model>,
    /// Requests served at once; fixed when the runtime starts.
    pub slots: NonZeroU32,
    /// Requests that may wait for a slot; one more gets 503.
    pub max_queue: usize,
    /// Models held in memory at once; one more evicts the least recently used idle one.
    pub max_loaded: NonZeroUsize,
    /// Pace of an answer; `None` is as fast as it goes.
    pub tokens_per_second: Option<NonZeroU32>,
    /// Time from slot and loaded model to the first token.
    pub first_token_delay: Duration,
    /// Time to load a model that is not in memory.
    pub cold_load: Duration,
    /// How long an idle model stays in memory unless a request says otherwise.
    pub keep_alive: Duration,
    /// Length of every answer that the request does not limit; `None` varies it by prompt.
    pub answer_tokens: Option<NonZeroU32>,
    /// Makes the answers of this runtime its own.
    pub seed: u64,
    /// How long it takes to pull or push a model.
    pub transfer_time: Duration,
    /// Writes the same times and durations into every answer, so that equal requests get equal bytes.
    pub fixed_clock: bool,
    /// Whether its owner has forbidden what needs an account elsewhere.
    pub cloud_disabled: bool,
    /// How it fails.
    pub failure: FailureMode,
    /// Which requests the failure hits.
    pub failure_scope: FailureScope,
}

/// How a runtime fails. All but [`FailureMode::Refuse`] hit new requests only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureMode {
    /// It works.
    None,
    /// Its port refuses connections and the open ones break, as when the process is gone.
    Refuse,
    /// The answer stops and the connection stays open.
    Stall {
        /// Bytes of the answer's body that are sent first; with 0 not even the head is.
        after_bytes: u64,
    },
    /// The connection is reset (RST).
    Reset {
        /// Bytes of the answer's body that are sent first; with 0 not even the head is.
        after_bytes: u64,
    },
    /// Every request gets this status and an error in its protocol's shape.
    Status(StatusCode),
    /// A stream breaks off with the protocol's error; an answer in one piece becomes a 500.
    ErrorLine {
        /// Tokens that are sent first.
        after_tokens: u32,
    },
    /// Loading, the first token and every further one take this many times longer.
    Slow {
        /// How many times.
        factor: NonZeroU32,
    },
}

/// Which requests a failure hits; a refused connection hits all of them anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FailureScope {
    /// Only what runs a model: probes still see a runtime that works.
    #[default]
    Inference,
    /// Every route.
    Everything,
}

impl Default for RuntimeScript {
    /// A fast runtime with one model, `simulated-small:latest`.
    fn default() -> Self {
        Self {
            label: "simulated".to_owned(),
            version: "0.0.0-simulated".to_owned(),
            models: vec![simulated_model("simulated-small:latest", GIB)],
            slots: NonZeroU32::MIN.saturating_add(3),
            max_queue: 512,
            max_loaded: NonZeroUsize::MIN.saturating_add(2),
            tokens_per_second: None,
            first_token_delay: Duration::ZERO,
            cold_load: Duration::ZERO,
            keep_alive: Duration::from_mins(5),
            answer_tokens: None,
            seed: 0,
            transfer_time: Duration::ZERO,
            fixed_clock: false,
            cloud_disabled: false,
            failure: FailureMode::None,
            failure_scope: FailureScope::Inference,
        }
    }
}

impl RuntimeScript {
    /// Returns the `n`-th runtime to show somebody who has none: human pace, cold loads, and
    /// models of which each runtime has some.
    pub fn dev_defaults(n: u32) -> Self {
        let mut models = vec![
            simulated_model("simulated-small:latest", 2 * GIB),
            embedding_model("simulated-embed:latest"),
        ];
        if n.is_multiple_of(2) {
            models.push(simulated_model("simulated-large:latest", 20 * GIB));
        } else {
            models.push(simulated_model("simulated-code:latest", 5 * GIB));
        }
        Self {
            label: format!("simulated-{n}"),
            models,
            slots: NonZeroU32::MIN.saturating_add(1 + n % 3),
            max_loaded: NonZeroUsize::MIN.saturating_add(1),
            tokens_per_second: NonZeroU32::new(30 + 15 * (n % 3)),
            first_token_delay: Duration::from_millis(120 + 40 * u64::from(n % 4)),
            cold_load: Duration::from_secs(2),
            seed: u64::from(n),
            ..Self::default()
        }
    }

    /// Returns the whole answer that a runtime with this script gives to `prompt`.
    ///
    /// `limit` is the request's `num_predict` or `max_tokens`. The prompt of a chat is made by
    /// [`chat_prompt`]. A model that the script does not have answers nothing.
    pub fn answer(&self, model: &str, prompt: &str, limit: Option<NonZeroU32>) -> String {
        let Some(model) = self.model(model) else {
            return String::new();
        };
        let mut words = Sequence::new(self.seed, &model.name, prompt);
        let (length, _reason) = self.answer_length(&words, limit);
        let words: Vec<_> = (0..length).map(|_| words.next_word()).collect();
        words.join(" ")
    }

    /// Finds a model by name; `:latest` may be left out, case does not matter.
    pub(super) fn model(&self, name: &str) -> Option<&Model> {
        let tagged = with_tag(name);
        self.models
            .iter()
            .find(|model| model.name.eq_ignore_ascii_case(&tagged))
    }

    /// Decides how many tokens an answer has and why it ends there.
    pub(super) fn answer_length(
        &self,
        words: &Sequence,
        limit: Option<NonZeroU32>,
    ) -> (u64, DoneReason) {
        let natural = self
            .answer_tokens
            .map_or_else(|| words.natural_length(), |tokens| u64::from(tokens.get()));
        match limit.map(|limit| u64::from(limit.get())) {
            Some(limit) if limit < natural => (limit, DoneReason::Length),
            Some(_) | None => (natural, DoneReason::Stop),
        }
    }
}

/// Returns the name with its tag, `:latest` unless it has one.
pub(crate) fn with_tag(name: &str) -> String {
    let last_part = name.rsplit('/').next().unwrap_or(name);
    if last_part.contains(':') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoneReason {
    Stop,
    Length,
}

impl DoneReason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Makes a model that generates text, of `size` bytes, described as simulated.
pub fn simulated_model(name: &str, size: u64) -> Model {
    let mut words = Sequence::new(0, name, "digest");
    let digest = (0..4).map(|_| format!("{:016x}", words.next_number()));
    Model {
        name: name.to_owned(),
        size: Some(size),
        digest: Some(digest.collect::<String>()),
        modified_at: Some("2026-01-01T00:00:00Z".to_owned()),
        details: Some(ModelDetails {
            parent_model: String::new(),
            format: "simulated".to_owned(),
            family: "simulated".to_owned(),
            families: Some(vec!["simulated".to_owned()]),
            parameter_size: format!("{}B", (size / GIB).max(1)),
            quantization_level: "Q4_K_M".to_owned(),
        }),
        capabilities: vec!["completion".to_owned(), "tools".to_owned()],
    }
}

/// Makes a model that only embeds.
pub fn embedding_model(name: &str) -> Model {
    Model {
        capabilities: vec!["embedding".to_owned()],
        ..simulated_model(name, GIB / 4)
    }
}

/// Returns what a scripted runtime takes as the prompt of a chat: one line per message.
pub fn chat_prompt<'a>(messages: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let lines = messages
        .into_iter()
        .map(|(role, content)| format!("{role}: {content}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tag_latest_may_be_left_out() {
        let script = RuntimeScript::default();

        assert!(script.model("simulated-small").is_some());
        assert!(script.model("Simulated-Small:latest").is_some());
        assert!(script.model("simulated-small:7b").is_none());
        assert!(script.model("host:5000/simulated-small").is_none());
    }

    #[test]
    fn limit_shortens_an_answer_and_never_lengthens_it() {
        let script = RuntimeScript {
            answer_tokens: NonZeroU32::new(10),
            ..RuntimeScript::default()
        };
        let whole = script.answer("simulated-small", "hi", None);

        assert_eq!(whole.split(' ').count(), 10);
        assert_eq!(
            script.answer("simulated-small", "hi", NonZeroU32::new(99)),
            whole
        );
        let short = script.answer("simulated-small", "hi", NonZeroU32::new(3));
        assert_eq!(short.split(' ').count(), 3);
        assert!(whole.starts_with(&short));
    }

    #[test]
    fn everything_for_dev_says_that_it_is_simulated() {
        for n in 0..6 {
            let script = RuntimeScript::dev_defaults(n);

            assert!(script.version.contains("simulated"));
            assert!(
                script
                    .models
                    .iter()
                    .all(|m| m.name.starts_with("simulated-"))
            );
        }
    }
}
