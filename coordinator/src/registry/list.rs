//! The list of all agents as JSON, kept until it is out of date.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long the times last seen, load figures and in-flight counts in a list stay good.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The last list that was made.
#[derive(Debug, Default)]
pub(super) struct ListCache(Mutex<Option<CachedList>>);

#[derive(Debug)]
struct CachedList {
    revision: u64,
    made_at: Instant,
    json: Bytes,
}

impl ListCache {
    /// Returns the list of `revision` if there is one and it is young enough.
    pub(super) fn get(&self, revision: u64, now: Instant) -> Option<Bytes> {
        let cached = self.0.lock();
        let cached = cached.as_ref()?;
        let is_good =
            cached.revision == revision && now.saturating_duration_since(cached.made_at) < MAX_AGE;
        is_good.then(|| cached.json.clone())
    }

    /// Keeps a list for others.
    pub(super) fn put(&self, revision: u64, made_at: Instant, json: Bytes) {
        *self.0.lock() = Some(CachedList {
            revision,
            made_at,
            json,
        });
    }
}
