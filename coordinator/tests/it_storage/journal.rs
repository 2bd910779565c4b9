//! The journal beside a large file: what is appended when, what remains when a step fails, and
//! what a kill at any moment leaves.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::{Inspection, JsonStore, inspect};
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::writer::Writer;
use ollama_coordinator::storage::{self, Change, Store as _};
use rstest::rstest;

use crate::support::memory_disk::MemoryDisk;
use crate::support::scripted_disk::{Operation, ScriptedDisk};
use crate::support::{ALWAYS_A_JOURNAL, FOLDED_BY_EACH_COMMIT, names, open_and_load, put};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn batch_is_appended_and_flushed_and_nothing_else_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, mut store) = store_with_journal(directory.path());
    let file = fs::read(directory.path().join("agents.json")).unwrap();

    store.commit(&[put(&agent(3))]).unwrap();

    assert_eq!(
        steps(&disk),
        [
            (Operation::List, name(directory.path())),
            (Operation::Write, "agents.json.journal-1".to_owned()),
            (Operation::SyncFile, "agents.json.journal-1".to_owned()),
        ]
    );
    assert_eq!(
        fs::read(directory.path().join("agents.json")).unwrap(),
        file
    );
    drop(store);
    expect_agents(directory.path(), &[1, 2, 3]);
}

#[test]
fn journal_begins_after_the_file_repeats_its_backup_and_its_name_is_durable() {
    let directory = tempfile::tempdir().unwrap();
    let disk = ScriptedDisk::default();
    let mut store = on(&disk, directory.path());
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    disk.take_record();

    store.commit(&[put(&agent(2))]).unwrap();

    let steps = steps(&disk);
    let (_, journal) = steps.split_at(steps.len() - 5);
    let named = |step| (step, "agents.json.journal-1".to_owned());
    assert_eq!(
        journal,
        [
            (Operation::SyncDirectory, name(directory.path())),
            named(Operation::Create),
            named(Operation::Write),
            named(Operation::SyncFile),
            (Operation::SyncDirectory, name(directory.path())),
        ]
    );
    let agents = |name| {
        let text = fs::read_to_string(directory.path().join(name)).unwrap();
        text.split_once("\"agents\": [").unwrap().1.to_owned()
    };
    assert_eq!(agents("agents.json"), agents("agents.json.bak"));
}

#[test]
fn journal_is_readable_a_change_to_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut store) = store_with_journal(directory.path());
    store
        .commit(&[put(&agent(3)), Change::Remove(agent(1).id)])
        .unwrap();

    let text = fs::read_to_string(directory.path().join("agents.json.journal-1")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();

    assert_eq!(lines.len(), 5, "{text}");
    assert_eq!(lines[0]["follows"], 1);
    assert_eq!(lines[0]["generation"], 2);
    assert_eq!(lines[1]["put"]["machine_name"], "machine-2");
    assert_eq!(lines[2]["generation"], 3);
    assert_eq!(lines[3]["put"]["machine_name"], "machine-3");
    assert_eq!(lines[4]["remove"], agent(1).id.to_string());
}

#[rstest]
#[case::no_room(Operation::Write, ENOSPC)]
#[case::disk_error_on_fsync(Operation::SyncFile, EIO)]
fn failed_append_is_undone_and_nothing_is_appended_to_that_journal_again(
    #[case] step: Operation,
    #[case] errno: i32,
) {
    let directory = tempfile::tempdir().unwrap();
    let (disk, mut store) = store_with_journal(directory.path());
    disk.fail(step, errno);

    store.commit(&[put(&agent(3))]).unwrap_err();
    disk.take_record();
    store.commit(&[put(&agent(4))]).unwrap_err();
    disk.heal();
    store.commit(&[]).unwrap();
    store.commit(&[put(&agent(5))]).unwrap();
    store.commit(&[put(&agent(6))]).unwrap();

    let to_the_old = steps(&disk)
        .into_iter()
        .filter(|(_, name)| name == "agents.json.journal-1")
        .collect::<Vec<_>>();
    assert_eq!(to_the_old, [], "a closed journal must be left alone");
    drop(store);
    expect_agents(directory.path(), &[1, 2, 5, 6]);
}

#[rstest]
#[case::no_journal_can_be_created(Operation::Create)]
#[case::its_name_cannot_be_flushed(Operation::SyncDirectory)]
fn journal_that_cannot_begin_is_no_obstacle_for_the_next(#[case] step: Operation) {
    let directory = tempfile::tempdir().unwrap();
    let disk = ScriptedDisk::default();
    let mut store = on(&disk, directory.path());
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    store.commit(&[]).unwrap();
    disk.fail(step, EIO);

    store.commit(&[put(&agent(2))]).unwrap_err();
    disk.heal();
    store.commit(&[put(&agent(3))]).unwrap();
    drop(store);

    expect_agents(directory.path(), &[1, 3]);
}

#[rstest]
#[case::file("agents.json")]
#[case::journal("agents.json.journal-1")]
fn file_deleted_while_running_is_noticed_by_the_next_commit(#[case] deleted: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (_, mut store) = store_with_journal(directory.path());
    fs::remove_file(directory.path().join(deleted)).unwrap();

    store.commit(&[put(&agent(3))]).unwrap();
    drop(store);

    expect_agents(directory.path(), &[1, 2, 3]);
}

#[test]
fn next_process_begins_a_journal_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, store) = store_with_journal(directory.path());
    drop(store);

    let mut store = on(&disk, directory.path());
    let loaded = store.load().unwrap();
    store.commit(&[put(&agent(3))]).unwrap();
    store.commit(&[put(&agent(4))]).unwrap();
    drop(store);

    assert_eq!(loaded.recovery, Recovery::Clean);
    assert_eq!(
        names(directory.path()),
        [
            "agents.json",
            "agents.json.bak",
            "agents.json.journal-1",
            "agents.json.journal-2"
        ]
    );
    expect_agents(directory.path(), &[1, 2, 3, 4]);
}

#[test]
fn only_the_journals_of_the_file_and_its_backup_are_kept() {
    let disk = MemoryDisk::default();
    let mut store = in_memory(&disk).with_limits(FOLDED_BY_EACH_COMMIT);
    store.load().unwrap();

    for number in 1..8 {
        store.commit(&[put(&agent(number))]).unwrap();
    }

    let journals: Vec<_> = disk
        .files()
        .into_keys()
        .filter(|path| path.to_string_lossy().contains("journal"))
        .collect();
    assert_eq!(
        journals,
        [
            Path::new("/data/agents.json.journal-5"),
            Path::new("/data/agents.json.journal-6")
        ]
    );
}

#[test]
fn clean_end_leaves_everything_in_the_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = store_with_journal(directory.path());

    let (writer, thread) = Writer::start(Box::new(store));
    writer.stop();
    thread.join();
    fs::remove_file(directory.path().join("agents.json.journal-1")).unwrap();

    expect_agents(directory.path(), &[1, 2]);
}

#[test]
fn clean_end_that_cannot_write_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, mut store) = store_with_journal(directory.path());
    disk.fail(Operation::Write, ENOSPC);

    store.close();
    drop(store);

    expect_agents(directory.path(), &[1, 2]);
}

#[test]
fn inspection_counts_the_agents_in_the_journal_and_touches_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (_, store) = store_with_journal(directory.path());
    drop(store);
    let before = names(directory.path());

    let found = inspect(directory.path()).unwrap();

    let (agents, rejected) = (2, 0);
    assert_eq!(found, Inspection::Whole { agents, rejected });
    assert_eq!(names(directory.path()), before);
}

#[cfg(unix)]
#[test]
fn journal_is_for_the_owner_only_and_beside_what_a_link_leads_to() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(
        elsewhere.path().join("registry.json"),
        directory.path().join("agents.json"),
    )
    .unwrap();

    let (_, store) = store_with_journal(directory.path());
    drop(store);

    assert_eq!(names(directory.path()), ["agents.json"]);
    let journal = elsewhere.path().join("registry.json.journal-1");
    let mode = fs::metadata(journal).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    expect_agents(directory.path(), &[1, 2]);
}

#[rstest]
#[case::that_commits_a_batch(Ending::Commit)]
#[case::at_a_clean_end(Ending::Close)]
fn kill_at_each_step_of_folding_loses_nothing(#[case] ending: Ending) {
    const STEPS: u32 = 60;
    let mut kills = 0;

    for step in 0..STEPS {
        let disk = MemoryDisk::default();
        let mut store = in_memory(&disk);
        store.load().unwrap();
        for number in 1..4 {
            store.commit(&[put(&agent(number))]).unwrap();
        }
        disk.kill_after(step);
        let acknowledged = match ending {
            Ending::Commit => {
                store = store.with_limits(FOLDED_BY_EACH_COMMIT);
                store.commit(&[put(&agent(4))]).is_ok()
            }
            Ending::Close => {
                store.close();
                false
            }
        };
        drop(store);
        let was_killed = disk.revive();
        kills += u32::from(was_killed);

        let damaged = disk.copy().with_file("/data/agents.json", "damaged");
        let mut store = in_memory(&disk);
        let loaded = store.load().unwrap();
        let last = if acknowledged { 4 } else { 3 };
        assert_eq!(loaded.recovery, Recovery::Clean, "killed after {step}");
        let found = loaded.agents.len();
        assert!(found >= last && found <= 4, "killed after {step}: {found}");
        assert_eq!(loaded.agents, (1..=found).map(number).collect::<Vec<_>>());

        store.commit(&[put(&agent(5))]).unwrap();
        drop(store);
        let after = in_memory(&disk).load().unwrap().agents;
        assert_eq!(after.len(), found + 1, "killed after {step}");

        let from_backup = in_memory(&damaged).load().unwrap();
        assert_eq!(from_backup.recovery.code(), "recovered_from_backup");
        assert!(
            from_backup.agents.len() >= last,
            "killed after {step}, then damaged: {:?}",
            from_backup.agents
        );
    }

    assert!((8..STEPS).contains(&kills), "{kills}");
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Commit,
    Close,
}

/// Returns a store whose file has the first agent and whose journal has the second.
fn store_with_journal(directory: &Path) -> (ScriptedDisk, JsonStore) {
    let disk = ScriptedDisk::default();
    let mut store = on(&disk, directory);
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    store.commit(&[put(&agent(2))]).unwrap();
    disk.take_record();
    (disk, store)
}

fn on(disk: &ScriptedDisk, directory: &Path) -> JsonStore {
    JsonStore::on(Arc::new(disk.clone()), directory, None).with_limits(ALWAYS_A_JOURNAL)
}

fn in_memory(disk: &MemoryDisk) -> JsonStore {
    let store = JsonStore::on(Arc::new(disk.clone()), Path::new("/data"), None);
    store.with_limits(ALWAYS_A_JOURNAL)
}

fn expect_agents(directory: &Path, numbers: &[u16]) {
    let loaded = open_and_load(directory).1;
    let expected: Vec<_> = numbers.iter().copied().map(agent).collect();
    assert_eq!(
        (loaded.agents, loaded.recovery),
        (expected, Recovery::Clean)
    );
}

fn number(number: usize) -> storage::agent::StoredAgent {
    agent(u16::try_from(number).unwrap())
}

fn steps(disk: &ScriptedDisk) -> Vec<(Operation, String)> {
    let record = disk.take_record();
    let steps = record.into_iter().map(|(step, path)| (step, name(&path)));
    steps.collect()
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}
