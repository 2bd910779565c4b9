//! Decides how a batch becomes durable: with the whole file, or after it in a journal.
//!
//! Writing the whole file costs what the fleet is large, a journal what has changed. A journal
//! that is folded in when it is as long as the file costs each batch twice its size and no more.

use super::Limits;

/// What there is to write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Situation {
    /// The file's length.
    pub(super) file: u64,
    pub(super) journal: JournalState,
}

/// Whether a batch can follow the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JournalState {
    /// Not before the file is written: it holds a batch that its backup knows nothing of, or the
    /// end of its journal is uncertain.
    Closed,
    /// A journal can begin.
    Ready,
    /// So many bytes follow already.
    Open(u64),
}

/// How a batch becomes durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The whole file, with the batch in it.
    Whole,
    /// The whole file without the batch, so that its backup and the journals say the same; then
    /// the batch, if there is one, in a journal.
    Fold,
    /// In the journal.
    Append,
}

/// Returns what to do with a batch; an empty one writes the present state.
pub(super) fn next_step(limits: Limits, situation: Situation, batch: usize) -> Step {
    if situation.file <= limits.small_file {
        return Step::Whole;
    }
    let most = situation.file.saturating_mul(limits.journal_percent) / 100;
    match situation.journal {
        _ if batch == 0 => Step::Fold,
        JournalState::Closed => Step::Fold,
        JournalState::Open(bytes) if bytes >= most => Step::Fold,
        JournalState::Ready | JournalState::Open(_) => Step::Append,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        small_file: 1_000,
        journal_percent: 50,
    };

    #[test]
    fn small_file_is_always_written_as_a_whole() {
        for journal in [
            JournalState::Closed,
            JournalState::Ready,
            JournalState::Open(1),
        ] {
            assert_eq!(step(1_000, journal, 1), Step::Whole);
            assert_eq!(step(0, journal, 0), Step::Whole);
        }
    }

    #[test]
    fn large_file_is_followed_until_the_journal_has_outgrown_it() {
        assert_eq!(step(1_001, JournalState::Closed, 1), Step::Fold);
        assert_eq!(step(1_001, JournalState::Ready, 1), Step::Append);
        assert_eq!(step(2_000, JournalState::Open(999), 1), Step::Append);
        assert_eq!(step(2_000, JournalState::Open(1_000), 1), Step::Fold);
    }

    #[test]
    fn empty_batch_writes_the_state_again() {
        for journal in [
            JournalState::Closed,
            JournalState::Ready,
            JournalState::Open(1),
        ] {
            assert_eq!(step(2_000, journal, 0), Step::Fold);
        }
    }

    #[test]
    fn bytes_written_grow_with_the_fleet_and_not_with_its_square() {
        const BATCH: u64 = 100;

        for batches in [1_000, 100_000] {
            let (mut file, mut journal, mut written) = (0, JournalState::Closed, 0);
            for number in 0..batches {
                let (before, after) = (number * BATCH, (number + 1) * BATCH);
                let wrote = match next_step(LIMITS, Situation { file, journal }, 1) {
                    Step::Whole => {
                        (file, journal) = (after, JournalState::Closed);
                        after
                    }
                    Step::Fold => {
                        (file, journal) = (before, JournalState::Open(BATCH));
                        after
                    }
                    Step::Append => {
                        journal = match journal {
                            JournalState::Open(bytes) => JournalState::Open(bytes + BATCH),
                            JournalState::Closed | JournalState::Ready => unreachable!(),
                        };
                        BATCH
                    }
                };
                written += wrote;
            }

            let stored = batches * BATCH;
            assert!(written <= 5 * stored, "{written} bytes for {stored}");
        }
    }

    fn step(file: u64, journal: JournalState, batch: usize) -> Step {
        next_step(LIMITS, Situation { file, journal }, batch)
    }
}
