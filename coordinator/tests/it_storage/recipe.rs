//! The order of file operations in a commit, and what remains when any one of them fails.

use std::path::Path;
use std::sync::Arc;

use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::JsonStore;
use ollama_coordinator::storage::writer::{CommitError, StorageHealth, Writer};
use ollama_coordinator::storage::{Store as _, StoreError};
use rstest::rstest;

use crate::support::scripted_disk::{Operation, ScriptedDisk};
use crate::support::{names, open_and_load, put, wait_for};

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const EBUSY: i32 = 16;

#[tokio::test]
async fn commit_is_acknowledged_only_after_each_step_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, store) = store_with_agent(directory.path());
    let (writer, thread) = Writer::start(Box::new(store));
    let (tx, rx) = tokio::sync::oneshot::channel();
    let watched = disk.clone();

    let acknowledge = move |result: Result<_, _>| {
        drop(tx.send(result.map(|()| watched.take_record())));
    };
    writer.submit(vec![put(&agent(2))], acknowledge).unwrap();
    let record = rx.await.unwrap().unwrap();

    let temporary = format!(".agents.json.tmp.{}.0", std::process::id());
    let link = format!("{temporary}.bak");
    let directory_name = directory.path().file_name().unwrap().to_str().unwrap();
    let steps: Vec<_> = record
        .iter()
        .map(|(step, path)| (*step, path.file_name().unwrap().to_str().unwrap()))
        .collect();
    assert_eq!(
        steps,
        [
            (Operation::Create, temporary.as_str()),
            (Operation::Write, &temporary),
            (Operation::SyncFile, &temporary),
            (Operation::Link, &link),
            (Operation::Rename, "agents.json.bak"),
            (Operation::Remove, &link),
            (Operation::Rename, "agents.json"),
            (Operation::SyncDirectory, directory_name),
        ]
    );
    drop(writer);
    thread.join();
}

#[rstest]
#[case::no_room_for_a_file(Operation::Create, ENOSPC)]
#[case::no_room_for_its_contents(Operation::Write, ENOSPC)]
#[case::disk_error_on_fsync(Operation::SyncFile, EIO)]
#[case::became_read_only(Operation::Rename, EROFS)]
#[case::single_file_mount(Operation::Rename, EBUSY)]
fn failed_step_keeps_the_old_file_and_leaves_no_other(#[case] step: Operation, #[case] errno: i32) {
    let directory = tempfile::tempdir().unwrap();
    let (disk, mut store) = store_with_agent(directory.path());
    let before = std::fs::read(directory.path().join("agents.json")).unwrap();
    disk.fail(step, errno);
    disk.take_record();

    for _ in 0..2 {
        let error = store.commit(&[put(&agent(2))]).unwrap_err();
        let StoreError::Write(error) = error else {
            panic!("{error:?}");
        };
        assert_eq!(error.source.raw_os_error(), Some(errno), "{error}");
        assert_eq!(
            error.to_string().contains("mount"),
            errno == EBUSY,
            "{error}"
        );
    }

    let record = disk.take_record();
    let count = |step| record.iter().filter(|(done, _)| *done == step).count();
    assert!(
        count(Operation::SyncFile) <= count(Operation::Create),
        "{record:?}"
    );
    assert_eq!(
        std::fs::read(directory.path().join("agents.json")).unwrap(),
        before
    );
    assert_eq!(temporaries(directory.path()), [""; 0]);

    disk.heal();
    store.commit(&[put(&agent(3))]).unwrap();
    drop(store);
    let agents = open_and_load(directory.path()).1.agents;
    assert_eq!(
        agents,
        [agent(1), agent(3)],
        "a refused change must not appear later"
    );
}

#[test]
fn failed_fsync_of_the_directory_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, mut store) = store_with_agent(directory.path());
    disk.fail(Operation::SyncDirectory, EIO);

    store.commit(&[put(&agent(2))]).unwrap_err();
    disk.heal();
    store.commit(&[]).unwrap();
    drop(store);

    assert_eq!(open_and_load(directory.path()).1.agents, [agent(1)]);
    assert_eq!(temporaries(directory.path()), [""; 0]);
}

#[test]
fn file_system_without_hard_links_has_no_backup_but_works() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, mut store) = store_with_agent(directory.path());
    disk.fail(Operation::Link, 1);

    store.commit(&[put(&agent(2))]).unwrap();
    drop(store);

    assert_eq!(
        open_and_load(directory.path()).1.agents,
        [agent(1), agent(2)]
    );
}

#[test]
fn unreadable_registry_is_an_error_with_its_path_and_stays_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, store) = store_with_agent(directory.path());
    drop(store);
    disk.fail(Operation::Read, EACCES);
    let before = names(directory.path());

    let mut store = JsonStore::on(Arc::new(disk), directory.path(), None);
    let error = store.load().unwrap_err();

    assert!(matches!(error, StoreError::Read { .. }), "{error:?}");
    assert!(error.to_string().contains("agents.json"), "{error}");
    assert_eq!(names(directory.path()), before);
}

#[test]
fn damage_that_cannot_be_kept_as_evidence_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("agents.json"), "damaged").unwrap();
    let disk = ScriptedDisk::default();
    disk.fail(Operation::Rename, EROFS);

    let mut store = JsonStore::on(Arc::new(disk), directory.path(), None);
    let error = store.load().unwrap_err();

    assert!(matches!(error, StoreError::Evidence { .. }), "{error:?}");
    assert_eq!(
        std::fs::read(directory.path().join("agents.json")).unwrap(),
        b"damaged"
    );
}

#[tokio::test]
async fn writer_heals_when_the_disk_does() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, store) = store_with_agent(directory.path());
    let soon = std::time::Duration::from_millis(5);
    let (writer, thread) = Writer::start_with(Box::new(store), soon, soon);
    disk.fail(Operation::Write, ENOSPC);

    let refused = writer.commit(vec![put(&agent(2))]).await;
    assert!(matches!(refused, Err(CommitError::Store(_))), "{refused:?}");
    disk.heal();
    wait_for(
        || writer.health(),
        |health| *health == StorageHealth::Healthy,
    )
    .await;
    writer.commit(vec![put(&agent(2))]).await.unwrap();
    writer.stop();
    thread.join();

    assert_eq!(
        open_and_load(directory.path()).1.agents,
        [agent(1), agent(2)]
    );
}

fn store_with_agent(directory: &Path) -> (ScriptedDisk, JsonStore) {
    let disk = ScriptedDisk::default();
    let mut store = JsonStore::on(Arc::new(disk.clone()), directory, None);
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    disk.take_record();
    (disk, store)
}

fn temporaries(directory: &Path) -> Vec<String> {
    let mut names = names(directory);
    names.retain(|name| name.contains(".tmp."));
    names
}
