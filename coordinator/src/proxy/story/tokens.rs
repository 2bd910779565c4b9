//! Finds the runtime's own count of tokens near the end of its answer, without parsing the answer.
//!
//! A quotation mark inside a JSON string is escaped, so a text cannot look like the key that is
//! searched for. Where a key stands more than once, the last one counts.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;
use ollama_coordinator_common::protocol::request::Protocol;

/// How far from the end the counts are searched for.
const REACH: usize = 2 * 1024;
/// Where they mostly are: this is searched first.
const NEAR: usize = 512;
/// No answer has more tokens: what says so is no count.
const MOST_TOKENS: u64 = 1_000_000_000;

static PROMPT_EVAL_COUNT: Key = LazyLock::new(|| Finder::new("\"prompt_eval_count\""));
static EVAL_COUNT: Key = LazyLock::new(|| Finder::new("\"eval_count\""));
static PROMPT_TOKENS: Key = LazyLock::new(|| Finder::new("\"prompt_tokens\""));
static COMPLETION_TOKENS: Key = LazyLock::new(|| Finder::new("\"completion_tokens\""));
static INPUT_TOKENS: Key = LazyLock::new(|| Finder::new("\"input_tokens\""));
static OUTPUT_TOKENS: Key = LazyLock::new(|| Finder::new("\"output_tokens\""));

type Key = LazyLock<Finder<'static>>;

/// What a runtime counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    /// Tokens of the prompt.
    pub(super) prompt: Option<u64>,
    /// Tokens of the answer.
    pub(super) completion: Option<u64>,
}

/// Finds the counts in the last chunks of an answer.
pub(super) fn count(protocol: Protocol, tail: &[&[u8]]) -> Tokens {
    let text = end_of(tail);
    let first_of = |keys: &[&Finder<'_>]| keys.iter().find_map(|key| last_number(&text, key));
    match protocol {
        Protocol::Ollama => Tokens {
            prompt: first_of(&[&PROMPT_EVAL_COUNT]),
            completion: first_of(&[&EVAL_COUNT]),
        },
        Protocol::OpenAi => Tokens {
            prompt: first_of(&[&PROMPT_TOKENS, &INPUT_TOKENS]),
            completion: first_of(&[&COMPLETION_TOKENS, &OUTPUT_TOKENS]),
        },
        Protocol::Anthropic => Tokens {
            prompt: first_of(&[&INPUT_TOKENS]),
            completion: first_of(&[&OUTPUT_TOKENS]),
        },
    }
}

/// Joins the last bytes of the chunks; borrows when they are all in one.
fn end_of<'a>(tail: &[&'a [u8]]) -> Cow<'a, [u8]> {
    let last = |chunk: &[u8], most: usize| chunk.len().saturating_sub(most);
    let mut chunks = tail.iter().rev().filter(|chunk| !chunk.is_empty());
    let Some(newest) = chunks.next() else {
        return Cow::Borrowed(&[]);
    };
    let mut wanted = REACH.saturating_sub(newest.len());
    let mut earlier = Vec::new();
    for chunk in chunks {
        if wanted == 0 {
            break;
        }
        let part = chunk.get(last(chunk, wanted)..).unwrap_or_default();
        wanted -= part.len();
        earlier.push(part);
    }
    let newest = newest.get(last(newest, REACH)..).unwrap_or_default();
    if earlier.is_empty() {
        return Cow::Borrowed(newest);
    }
    earlier.reverse();
    earlier.push(newest);
    Cow::Owned(earlier.concat())
}

/// Returns the number that follows the last `key` and a colon.
fn last_number(text: &[u8], key: &Finder<'_>) -> Option<u64> {
    let last = |text: &[u8]| {
        let after = |at| number(text.get(at + key.needle().len()..)?);
        key.find_iter(text).filter_map(after).last()
    };
    let near = text.get(text.len().saturating_sub(NEAR)..)?;
    last(near).or_else(|| (near.len() < text.len()).then(|| last(text)).flatten())
}

/// Reads `: 12` up to what may follow a number in JSON.
fn number(text: &[u8]) -> Option<u64> {
    let text = text.trim_ascii_start().strip_prefix(b":")?;
    let text = text.trim_ascii_start();
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(digits)?;
    let is_whole = rest
        .first()
        .is_some_and(|byte| matches!(byte, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t'));
    let number: u64 = str::from_utf8(digits).ok()?.parse().ok()?;
    (is_whole && number <= MOST_TOKENS).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const OLLAMA: &str = concat!(
        r#"{"model":"a","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","#,
        r#""content":""},"done":true,"done_reason":"stop","total_duration":5043500667,"#,
        r#""load_duration":5025959,"prompt_eval_count":26,"prompt_eval_duration":325953000,"#,
        r#""eval_count":290,"eval_duration":4709213000}"#,
        "\n"
    );
    const OPENAI: &str = concat!(
        r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[],"usage":"#,
        r#"{"prompt_tokens":13,"completion_tokens":7,"total_tokens":20,"#,
        r#""completion_tokens_details":{"reasoning_tokens":0}}}"#,
        "\n\ndata: [DONE]\n\n"
    );
    const RESPONSES: &str = concat!(
        "event: response.completed\n",
        r#"data: {"type":"response.completed","response":{"max_output_tokens":null,"usage":"#,
        r#"{"input_tokens":37,"input_tokens_details":{"cached_tokens":0},"output_tokens":11,"#,
        r#""output_tokens_details":{"reasoning_tokens":0},"total_tokens":48}}}"#,
        "\n\n"
    );
    const ANTHROPIC: &str = concat!(
        "event: message_start\n",
        r#"data: {"type":"message_start","message":{"usage":{"input_tokens":25,"#,
        r#""cache_read_input_tokens":9,"output_tokens":1}}}"#,
        "\n\nevent: message_delta\n",
        r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"#,
        r#""usage":{"output_tokens":15}}"#,
        "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
    );
    const SPACED: &str = "{ \"usage\" : { \"prompt_tokens\" : 5 ,\n \"completion_tokens\":\t6 } }";

    fn counted(protocol: Protocol, text: &str) -> (Option<u64>, Option<u64>) {
        let Tokens { prompt, completion } = count(protocol, &[text.as_bytes()]);
        (prompt, completion)
    }

    #[rstest]
    #[case(Protocol::Ollama, OLLAMA, Some(26), Some(290))]
    #[case(Protocol::OpenAi, OPENAI, Some(13), Some(7))]
    #[case(Protocol::OpenAi, RESPONSES, Some(37), Some(11))]
    #[case(Protocol::OpenAi, SPACED, Some(5), Some(6))]
    #[case(Protocol::Anthropic, ANTHROPIC, Some(25), Some(15))]
    #[case::embeddings(
        Protocol::OpenAi,
        r#"{"data":[],"usage":{"prompt_tokens":8}}"#,
        Some(8),
        None
    )]
    #[case::no_counts(Protocol::Ollama, r#"{"done":true}"#, None, None)]
    #[case::nothing(Protocol::OpenAi, "", None, None)]
    #[case::other_protocol(Protocol::OpenAi, OLLAMA, None, None)]
    fn counts_of_the_runtime_are_found(
        #[case] protocol: Protocol,
        #[case] text: &str,
        #[case] prompt: Option<u64>,
        #[case] completion: Option<u64>,
    ) {
        assert_eq!(counted(protocol, text), (prompt, completion));
    }

    #[rstest]
    #[case::huge(r#"{"eval_count":99999999999999999999999999999}"#)]
    #[case::more_than_can_be(r#"{"eval_count":1000000001}"#)]
    #[case::negative(r#"{"eval_count":-1}"#)]
    #[case::fraction(r#"{"eval_count":1.5}"#)]
    #[case::exponent(r#"{"eval_count":1e9}"#)]
    #[case::text(r#"{"eval_count":"7"}"#)]
    #[case::cut_off(r#"{"eval_count":7"#)]
    #[case::a_value(r#"{"content":"eval_count","n":7}"#)]
    #[case::within_a_text(r#"{"content":"say {\"eval_count\":7}"}"#)]
    #[case::twice_escaped(r#"{"content":"say {\\\"eval_count\\\":7}"}"#)]
    fn what_is_no_count_is_not_taken_for_one(#[case] text: &str) {
        assert_eq!(counted(Protocol::Ollama, text), (None, None));
    }

    #[test]
    fn last_count_wins_over_what_a_tool_is_called_with() {
        let called = r#"{"message":{"tool_calls":[{"function":{"arguments":{"eval_count":1}}}]},"#;
        let text = format!("{called}\"done\":true,\"eval_count\":2}}");

        assert_eq!(counted(Protocol::Ollama, &text), (None, Some(2)));
    }

    #[test]
    fn only_the_end_of_a_large_answer_is_searched() {
        let text = format!("{OLLAMA}{}", " ".repeat(REACH));

        assert_eq!(counted(Protocol::Ollama, &text), (None, None));
    }

    proptest! {
        #[test]
        fn counts_are_found_wherever_chunks_are_cut(cuts in proptest::collection::vec(0_usize..400, 0..6)) {
            let text = ANTHROPIC.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();

            let tokens = count(Protocol::Anthropic, &chunks);

            prop_assert_eq!(tokens, Tokens { prompt: Some(25), completion: Some(15) });
        }

        #[test]
        fn any_bytes_are_borne(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..5)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();

            for protocol in Protocol::ALL {
                count(protocol, &chunks);
            }
        }
    }
}
