//! How to choose among candidates. Pure but for the counter that is passed in.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Takes the candidates in turn; `None` when there is none.
pub fn round_robin<'a, T>(candidates: &[&'a T], turn: &AtomicUsize) -> Option<&'a T> {
    if candidates.is_empty() {
        return None;
    }
    let turn = turn.fetch_add(1, Ordering::Relaxed);
    candidates.get(turn % candidates.len()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn candidates_are_taken_in_turn(count in 1_usize..20, start: usize, rounds in 1_usize..5) {
            let start = start / 2;
            let candidates: Vec<usize> = (0..count).collect();
            let candidates: Vec<&usize> = candidates.iter().collect();
            let turn = AtomicUsize::new(start);
            let mut picks = vec![0; count];

            for _ in 0..count * rounds {
                picks[*round_robin(&candidates, &turn).unwrap()] += 1;
            }

            prop_assert_eq!(picks, vec![rounds; count]);
        }
    }

    #[test]
    fn nobody_is_picked_from_nobody() {
        assert_eq!(round_robin::<usize>(&[], &AtomicUsize::new(7)), None);
    }
}
