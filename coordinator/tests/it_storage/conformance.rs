//! Every store keeps the same promises.

use ollama_coordinator::storage;
use ollama_coordinator::storage::memory::MemoryStore;

#[test]
fn json_store_conforms() {
    let directory = tempfile::tempdir().unwrap();

    storage::conformance::check(|| Box::new(storage::open(directory.path(), None).unwrap()));
}

#[test]
fn memory_store_conforms() {
    let store = MemoryStore::default();

    storage::conformance::check(|| Box::new(store.clone()));
}
