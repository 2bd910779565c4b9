//! What a scripted runtime answers: words that follow from seed, model and prompt, and nothing else.
//!
//! Two runtimes with different seeds answer differently, and whoever knows the seed can tell
//! whether an answer is whole. The numbers do not depend on platform or library version.

const VOCABULARY: [&str; 64] = [
    "amber", "anchor", "apple", "arrow", "basket", "beacon", "birch", "bridge", "candle", "canyon",
    "cedar", "cloud", "copper", "coral", "cotton", "crane", "dune", "eagle", "ember", "fern",
    "field", "flint", "forest", "garden", "glacier", "granite", "harbour", "hazel", "heron",
    "island", "ivory", "jasper", "juniper", "kettle", "lantern", "larch", "lemon", "linen",
    "maple", "marble", "meadow", "mirror", "mountain", "nectar", "oak", "ocean", "olive", "orchid",
    "pebble", "pine", "planet", "quartz", "raven", "river", "saffron", "shore", "silver", "stone",
    "summer", "thistle", "timber", "valley", "willow", "winter",
];
/// Answers without a set length have 16 to 48 words.
const SHORTEST_ANSWER: u64 = 16;
const LENGTH_SPREAD: u64 = 33;

/// An endless, reproducible sequence of numbers.
#[derive(Debug, Clone)]
pub(super) struct Sequence(u64);

impl Sequence {
    /// Starts the sequence that belongs to these three.
    pub(super) fn new(seed: u64, model: &str, prompt: &str) -> Self {
        let hash = [model.as_bytes(), b"\0", prompt.as_bytes()]
            .into_iter()
            .flatten()
            .fold(0xcbf2_9ce4_8422_2325 ^ mix(seed), |hash, byte| {
                (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(hash)
    }

    /// Returns another sequence that belongs to the same three.
    pub(super) fn aside(&self) -> Self {
        Self(mix(self.0))
    }

    /// Returns the length of the answer when neither script nor request sets one.
    pub(super) fn natural_length(&self) -> u64 {
        SHORTEST_ANSWER + mix(self.0) % LENGTH_SPREAD
    }

    /// Returns the next number.
    pub(super) fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Returns the next word.
    pub(super) fn next_word(&mut self) -> &'static str {
        let index = self.next_number() % VOCABULARY.len() as u64;
        VOCABULARY[usize::try_from(index).expect("an index of 64 words fits")]
    }

    /// Returns a number between -1 and 1.
    pub(super) fn next_component(&mut self) -> f32 {
        let sixteen_bits = u16::try_from(self.next_number() >> 48).expect("16 bits are left");
        f32::from(sixteen_bits) / 32_767.5 - 1.0
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_follow_from_seed_model_and_prompt() {
        let words = |seed, model, prompt| {
            let mut sequence = Sequence::new(seed, model, prompt);
            (0..8).map(|_| sequence.next_word()).collect::<Vec<_>>()
        };

        assert_eq!(words(1, "a", "hello"), words(1, "a", "hello"));
        assert_ne!(words(1, "a", "hello"), words(2, "a", "hello"));
        assert_ne!(words(1, "a", "hello"), words(1, "b", "hello"));
        assert_ne!(words(1, "a", "hello"), words(1, "a", "hullo"));
    }

    #[test]
    fn lengths_and_components_stay_in_their_ranges() {
        for prompt in ["", "a", "b", "c", "a longer prompt"] {
            let mut sequence = Sequence::new(7, "m", prompt);

            assert!((16..=48).contains(&sequence.natural_length()));
            for _ in 0..100 {
                assert!((-1.0..=1.0).contains(&sequence.next_component()));
            }
        }
    }
}
