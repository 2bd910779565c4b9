//! The writer's queue: who is answered what, when, and that nobody is forgotten.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, ThreadId};
use std::time::Duration;

use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::writer::{CommitError, StorageHealth, Writer, WriterThread};
use ollama_coordinator::storage::{Change, Loaded, Store, StoreError};
use ollama_coordinator_common::atomic_file::ReplaceError;
use tokio::sync::oneshot;

use crate::support::{put, wait_for};

const SOON: Duration = Duration::from_millis(5);
const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn everything_that_waits_becomes_one_batch_in_order() {
    let (writer, thread, store) = gated(NEVER);
    let first = submit(&writer, &[1]);
    let batch = store.begun();

    let second = submit(&writer, &[2, 3]);
    let third = submit(&writer, &[4]);
    store.finish(Ok(()));
    let batch_after = store.begun();
    store.finish(Ok(()));

    assert_eq!(batch, [put(&agent(1))]);
    assert_eq!(batch_after, [2, 3, 4].map(|number| put(&agent(number))));
    for answer in [first, second, third] {
        answer.await.unwrap().0.unwrap();
    }
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn callers_are_answered_on_the_writers_thread_once_durable() {
    let (writer, thread, store) = gated(NEVER);

    let mut answer = submit(&writer, &[1]);
    store.begun();
    assert!(
        answer.try_recv().is_err(),
        "answered before the commit returned"
    );
    store.finish(Ok(()));
    let (result, answered_on) = answer.await.unwrap();

    result.unwrap();
    assert_ne!(answered_on, thread::current().id());
    let counters = writer.counters();
    assert_eq!((counters.commits, counters.agents_committed), (1, 1));
    assert!(counters.last_commit.is_some());
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn full_queue_refuses_at_once_and_drops_the_answer() {
    let (writer, thread, store) = gated(NEVER);
    let first = submit(&writer, &[1]);
    store.begun();
    let mut waiting = Vec::new();

    let refused = loop {
        let (tx, rx) = oneshot::channel();
        match writer.submit(Vec::new(), move |result| drop(tx.send(result))) {
            Ok(()) => waiting.push(rx),
            Err(error) => break (error, rx),
        }
    };

    assert!(
        matches!(refused.0, CommitError::QueueFull),
        "{:?}",
        refused.0
    );
    assert!(
        refused.1.await.is_err(),
        "the answer must be dropped, not called"
    );
    assert!(waiting.len() > 1_000, "{}", waiting.len());
    store.finish(Ok(()));
    first.await.unwrap().0.unwrap();
    for answer in waiting {
        answer.await.unwrap().unwrap();
    }
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn stop_during_a_commit_settles_what_was_queued_and_refuses_the_rest() {
    let (writer, thread, store) = gated(NEVER);
    let running = submit(&writer, &[1]);
    store.begun();
    let queued = submit(&writer, &[2]);

    writer.stop();
    let refused = writer.submit(vec![put(&agent(3))], |_| unreachable!("it was refused"));
    store.finish(Ok(()));
    assert_eq!(store.begun(), [put(&agent(2))]);
    store.finish(Ok(()));
    thread.join();

    assert!(matches!(refused, Err(CommitError::Stopped)), "{refused:?}");
    running.await.unwrap().0.unwrap();
    queued.await.unwrap().0.unwrap();
    assert!(
        store.batches.recv().is_err(),
        "the store must be closed after the join"
    );
    writer.flush().await;
}

#[tokio::test]
async fn last_writer_dropped_settles_what_was_queued() {
    let (writer, thread, store) = gated(NEVER);
    let answer = submit(&writer, &[1]);

    drop(writer.clone());
    drop(writer);
    store.begun();
    store.finish(Ok(()));
    thread.join();

    answer.await.unwrap().0.unwrap();
}

#[tokio::test]
async fn flush_waits_for_everything_before_it() {
    let (writer, thread, store) = gated(NEVER);
    let mut answer = submit(&writer, &[1]);
    let flushing = writer.clone();
    let mut flush = Box::pin(async move { flushing.flush().await });
    store.begun();
    assert!(futures_util::poll!(flush.as_mut()).is_pending());

    store.finish(Ok(()));
    flush.await;

    answer
        .try_recv()
        .expect("settled before the flush returned")
        .0
        .unwrap();
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn changes_of_a_caller_that_went_away_are_stored_all_the_same() {
    let (writer, thread, store) = gated(NEVER);
    let mut commit = Box::pin(writer.commit(vec![put(&agent(1))]));
    assert!(futures_util::poll!(commit.as_mut()).is_pending());

    drop(commit);

    assert_eq!(store.begun(), [put(&agent(1))]);
    store.finish(Ok(()));
    writer.flush().await;
    assert_eq!(writer.counters().commits, 1);
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn failed_commit_refuses_the_whole_batch_and_the_next_ones_at_once() {
    let (writer, thread, store) = gated(NEVER);
    let first = submit(&writer, &[1]);
    store.begun();
    let second = submit(&writer, &[2]);
    store.finish(Err(disk_full()));
    let first = first.await.unwrap().0;
    let second = second.await.unwrap().0;

    let third = writer.commit(vec![put(&agent(3))]).await;

    assert!(matches!(first, Err(CommitError::Store(_))), "{first:?}");
    for refused in [second, third] {
        assert!(
            matches!(refused, Err(CommitError::BackingOff { .. })),
            "{refused:?}"
        );
    }
    let StorageHealth::Failing { detail, .. } = writer.health() else {
        panic!("{:?}", writer.health());
    };
    assert_eq!(
        detail,
        "failed to store the registry: failed to write: /x: no storage space"
    );
    assert_eq!(
        writer.counters().failed_commits,
        1,
        "the store was asked only once"
    );
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn failing_storage_heals_by_itself_without_a_caller() {
    let (writer, thread, store) = gated(SOON);
    let refused = submit(&writer, &[1]);
    store.begun();
    store.finish(Err(disk_full()));
    refused.await.unwrap().0.unwrap_err();

    assert_eq!(store.begun(), [], "a probe changes nothing");
    store.finish(Err(disk_full()));
    assert_eq!(store.begun(), [], "and is repeated");
    store.finish(Ok(()));
    wait_for(
        || writer.health(),
        |health| *health == StorageHealth::Healthy,
    )
    .await;

    let accepted = submit(&writer, &[1]);
    assert_eq!(store.begun(), [put(&agent(1))]);
    store.finish(Ok(()));
    accepted.await.unwrap().0.unwrap();
    drop(writer);
    thread.join();
}

#[tokio::test]
async fn last_batch_before_the_end_is_tried_although_storage_was_failing() {
    let (writer, thread, store) = gated(NEVER);
    let refused = submit(&writer, &[1]);
    store.begun();
    let last = submit(&writer, &[2]);
    writer.stop();
    store.finish(Err(disk_full()));
    refused.await.unwrap().0.unwrap_err();

    assert_eq!(store.begun(), [put(&agent(2))]);
    store.finish(Ok(()));
    thread.join();

    last.await.unwrap().0.unwrap();
    assert_eq!(writer.health(), StorageHealth::Healthy);
}

#[tokio::test]
async fn panic_in_the_store_leaves_nobody_waiting() {
    let (writer, thread, store) = gated(NEVER);
    let running = submit(&writer, &[1]);
    store.begun();
    let queued = submit(&writer, &[2]);

    drop(store);
    thread.join();

    assert!(running.await.is_err(), "dropped without an answer");
    assert!(queued.await.is_err(), "dropped without an answer");
    let refused = writer.commit(vec![put(&agent(3))]).await;
    assert!(matches!(refused, Err(CommitError::Stopped)), "{refused:?}");
    assert!(matches!(writer.health(), StorageHealth::Failing { .. }));
    writer.flush().await;
}

type Answer = (Result<(), CommitError>, ThreadId);

fn submit(writer: &Writer, numbers: &[u16]) -> oneshot::Receiver<Answer> {
    let (tx, rx) = oneshot::channel();
    let changes = numbers.iter().map(|number| put(&agent(*number))).collect();
    let answer = move |result| drop(tx.send((result, thread::current().id())));
    writer.submit(changes, answer).unwrap();
    rx
}

fn disk_full() -> StoreError {
    StoreError::Write(ReplaceError {
        attempted: "write",
        path: "/x".into(),
        source: std::io::ErrorKind::StorageFull.into(),
    })
}

/// A store whose commits the test watches begin and lets finish.
struct GatedStore {
    batches: Sender<Vec<Change>>,
    outcomes: Receiver<Result<(), StoreError>>,
}

struct Gate {
    batches: Receiver<Vec<Change>>,
    outcomes: Sender<Result<(), StoreError>>,
}

fn gated(retry: Duration) -> (Writer, WriterThread, Gate) {
    let (batches, begun) = mpsc::channel();
    let (finish, outcomes) = mpsc::channel();
    let store = GatedStore { batches, outcomes };
    let (writer, thread) = Writer::start_with(Box::new(store), retry, retry);
    let gate = Gate {
        batches: begun,
        outcomes: finish,
    };
    (writer, thread, gate)
}

impl Gate {
    fn begun(&self) -> Vec<Change> {
        let deadline = Duration::from_secs(20);
        self.batches
            .recv_timeout(deadline)
            .expect("a commit begins")
    }

    fn finish(&self, outcome: Result<(), StoreError>) {
        self.outcomes.send(outcome).unwrap();
    }
}

impl Store for GatedStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        unreachable!("the writer does not load")
    }

    fn commit(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        self.batches.send(batch.to_vec()).unwrap();
        self.outcomes.recv().expect("the test decides the outcome")
    }
}
