//! Every store keeps the same promises.

use ollama_coordinator::storage;
use ollama_coordinator::storage::json::Limits;
use ollama_coordinator::storage::memory::MemoryStore;
use rstest::rstest;

use crate::support::{ALWAYS_A_JOURNAL, FOLDED_BY_EACH_COMMIT};

#[rstest]
#[case::as_it_is(Limits::default())]
#[case::everything_in_a_journal(ALWAYS_A_JOURNAL)]
#[case::folded_by_each_commit(FOLDED_BY_EACH_COMMIT)]
fn json_store_conforms(#[case] limits: Limits) {
    let directory = tempfile::tempdir().unwrap();

    storage::conformance::check(|| {
        let store = storage::open(directory.path(), None).unwrap();
        Box::new(store.with_limits(limits))
    });
}

#[test]
fn memory_store_conforms() {
    let store = MemoryStore::default();

    storage::conformance::check(|| Box::new(store.clone()));
}
