//! The last publications of one view, for viewers who come back: bounded, and without a gap. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// How long a view is published after its last viewer has left, who may come back.
const LINGER: Duration = Duration::from_mins(1);
/// How many publications are kept: those of a minute.
const MOST: usize = 240;
/// How many bytes of them.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// The last publications of one view.
#[derive(Debug, Default)]
pub(super) struct Recent {
    kept: VecDeque<Publication>,
    bytes: usize,
    /// When somebody read this view last; `None`: too long ago.
    read_at: Option<Instant>,
}

#[derive(Debug)]
struct Publication {
    /// The number of the last frame before it.
    after: u64,
    frames: Bytes,
}

impl Recent {
    /// Somebody reads this view.
    pub(super) fn read(&mut self, now: Instant) {
        self.read_at = Some(now);
    }

    /// Returns whether this view is to be published. What is kept is dropped when it is not.
    pub(super) fn is_wanted(&mut self, now: Instant) -> bool {
        if self.read_at.is_some_and(|at| now - at < LINGER) {
            return true;
        }
        self.read_at = None;
        self.clear();
        false
    }

    /// Keeps what is published after frame number `after`.
    pub(super) fn push(&mut self, after: u64, frames: Bytes) {
        self.bytes += frames.len();
        self.kept.push_back(Publication { after, frames });
        while self.kept.len() > MOST || self.bytes > MOST_BYTES {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.frames.len();
        }
    }

    /// Forgets everything, because what comes next does not follow from it.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    /// Returns what was published after frame number `seen`, when the last one is number `now`;
    /// `None`: not all of it is kept.
    pub(super) fn since(&self, seen: u64, now: u64) -> Option<Vec<Bytes>> {
        if seen == now {
            return Some(Vec::new());
        }
        let mut kept = self.kept.iter();
        let first = kept.position(|publication| publication.after == seen)?;
        let missed = self.kept.iter().skip(first);
        Some(
            missed
                .map(|publication| publication.frames.clone())
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(sizes: &[usize]) -> Recent {
        let mut recent = Recent::default();
        for (after, size) in sizes.iter().enumerate() {
            recent.push(after as u64, vec![b'x'; *size].into());
        }
        recent
    }

    fn lengths(missed: Option<Vec<Bytes>>) -> Option<Vec<usize>> {
        missed.map(|missed| missed.iter().map(Bytes::len).collect())
    }

    #[test]
    fn viewer_that_comes_back_gets_what_it_missed_and_nothing_else() {
        let recent = kept(&[1, 2, 3]);

        assert_eq!(lengths(recent.since(0, 3)), Some(vec![1, 2, 3]));
        assert_eq!(lengths(recent.since(2, 3)), Some(vec![3]));
        assert_eq!(lengths(recent.since(3, 3)), Some(vec![]));
        assert_eq!(lengths(recent.since(4, 3)), None);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_is_not_is_never_passed_over() {
        let many = kept(&[1; MOST + 1]);
        let large = kept(&[MOST_BYTES, 1]);
        let larger = kept(&[MOST_BYTES + 1]);

        let all = MOST as u64 + 1;
        assert_eq!(lengths(many.since(0, all)), None);
        assert_eq!(lengths(many.since(1, all)), Some(vec![1; MOST]));
        assert_eq!(lengths(large.since(0, 2)), None);
        assert_eq!(lengths(large.since(1, 2)), Some(vec![1]));
        assert_eq!(lengths(larger.since(0, 1)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn view_is_wanted_for_a_while_after_its_last_viewer() {
        let mut recent = kept(&[1]);
        let left = Instant::now();

        assert!(!Recent::default().is_wanted(left));
        recent.read(left);
        assert!(recent.is_wanted(left + LINGER / 2));
        assert_eq!(lengths(recent.since(0, 1)), Some(vec![1]));
        assert!(!recent.is_wanted(left + LINGER));
        assert_eq!(lengths(recent.since(0, 1)), None);
    }
}
