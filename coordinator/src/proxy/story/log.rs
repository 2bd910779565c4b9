//! The latest requests: every one that runs, and a bounded number of those that have ended.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use slab::Slab;

use super::record::Record;

/// The request log.
#[derive(Debug)]
pub(super) struct Log {
    running: Mutex<Slab<Arc<Record>>>,
    ended: Mutex<VecDeque<Arc<Record>>>,
    /// The most that are kept after their end.
    most: usize,
}

impl Log {
    pub(super) fn new(most: usize) -> Self {
        Self {
            running: Mutex::default(),
            ended: Mutex::new(VecDeque::with_capacity(most)),
            most,
        }
    }

    /// Takes in a request that runs and returns its place.
    pub(super) fn begin(&self, record: Arc<Record>) -> usize {
        self.running.lock().insert(record)
    }

    /// Moves a request to those that have ended; it is never in neither list.
    pub(super) fn end(&self, place: usize, record: Arc<Record>) {
        let forgotten = {
            let mut ended = self.ended.lock();
            ended.push_back(record);
            (ended.len() > self.most).then(|| ended.pop_front())
        };
        drop(forgotten);
        self.running.lock().remove(place);
    }

    /// Returns those that run, newest first.
    pub(super) fn running(&self) -> Vec<Arc<Record>> {
        let records = self.running.lock();
        let running = records.iter().map(|(_, record)| Arc::clone(record));
        newest_first(running.collect())
    }

    /// Returns those that have ended, newest first.
    fn ended(&self) -> Vec<Arc<Record>> {
        newest_first(self.ended.lock().iter().cloned().collect())
    }

    /// Returns those that run and then the others, newest first.
    pub(super) fn all(&self) -> Vec<Arc<Record>> {
        let mut records = self.running();
        let running: HashSet<u64> = records.iter().map(|record| record.number).collect();
        let is_other = |record: &Arc<Record>| !running.contains(&record.number);
        records.extend(self.ended().into_iter().filter(is_other));
        records
    }

    /// Returns the newest request with this id.
    pub(super) fn find(&self, id: &str) -> Option<Arc<Record>> {
        let found = self
            .all()
            .into_iter()
            .filter(|record| record.id.as_str() == id);
        found.max_by_key(|record| record.number)
    }
}

fn newest_first(mut records: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
    records.sort_unstable_by_key(|record| std::cmp::Reverse(record.number));
    records
}
