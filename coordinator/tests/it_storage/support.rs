//! Disks that fail, remember or forget, and short forms that most tests use.

pub(crate) mod memory_disk;
pub(crate) mod rebind;
pub(crate) mod scripted_disk;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::json::{JsonStore, Limits};
use ollama_coordinator::storage::{self, Change, Loaded, Store as _};
use tokio::time::Instant;

/// Lets any file but an empty one be followed by a journal that is never folded in.
pub(crate) const ALWAYS_A_JOURNAL: Limits = Limits {
    small_file: 0,
    journal_percent: u64::MAX,
};

/// Begins a new journal with each commit.
pub(crate) const FOLDED_BY_EACH_COMMIT: Limits = Limits {
    small_file: 0,
    journal_percent: 0,
};

/// Makes a change that stores `agent`.
pub(crate) fn put(agent: &StoredAgent) -> Change {
    Change::Put(Arc::new(agent.clone()))
}

/// Opens and loads the store in `directory`.
pub(crate) fn open_and_load(directory: &Path) -> (JsonStore, Loaded) {
    let mut store = storage::open(directory, None).unwrap();
    let loaded = store.load().unwrap();
    (store, loaded)
}

/// Returns the names in `directory`, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits until `condition` holds for what `observe` returns.
pub(crate) async fn wait_for<T: std::fmt::Debug>(
    observe: impl Fn() -> T,
    condition: impl Fn(&T) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let observed = observe();
        if condition(&observed) {
            return;
        }
        assert!(Instant::now() < deadline, "still {observed:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
