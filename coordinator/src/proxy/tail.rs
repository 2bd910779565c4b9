//! The end of a stream, in which runtimes say how many tokens there were.

use bytes::Bytes;

/// How much of one chunk is kept.
const KEPT: usize = 1024;

/// The ends of the last two chunks: the last one is often only an end mark.
#[derive(Debug, Default)]
pub struct Tail {
    before: Vec<u8>,
    last: Vec<u8>,
}

impl Tail {
    /// Takes a chunk. It is copied, because a reference would keep its whole buffer in memory.
    pub fn push(&mut self, chunk: &Bytes) {
        std::mem::swap(&mut self.before, &mut self.last);
        self.last.clear();
        let from = chunk.len().saturating_sub(KEPT);
        self.last
            .extend_from_slice(chunk.get(from..).unwrap_or_default());
    }

    /// Returns what is kept of the last chunk but one and of the last.
    pub fn ends(&self) -> [&[u8]; 2] {
        [&self.before, &self.last]
    }
}
