//! Torn, damaged, foreign and newer journals: what was acknowledged before the damage is there,
//! nothing is invented, evidence stays.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::JsonStore;
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Change, Loaded, Store as _, StoreError};
use proptest::prelude::*;

use crate::support::memory_disk::MemoryDisk;
use crate::support::rebind::rebind;
use crate::support::{ALWAYS_A_JOURNAL, FOLDED_BY_EACH_COMMIT, put};

const FILE: &str = "/data/agents.json";
const JOURNAL: &str = "/data/agents.json.journal-1";

#[test]
fn torn_end_of_a_journal_is_dropped_and_what_was_acknowledged_is_loaded() {
    let (disk, journal) = with_journal();
    let ends = batch_ends(&journal);

    for length in 0..=journal.len() {
        let disk = disk.copy().with_file(JOURNAL, &journal[..length]);
        let whole = ends.iter().filter(|end| **end <= length).count();

        let mut store = open(&disk);
        let loaded = store.load().unwrap();
        store.commit(&[put(&agent(9))]).unwrap();
        drop(store);

        assert_eq!(loaded.recovery, Recovery::Clean, "cut at {length}");
        assert_eq!(loaded.agents, state(whole), "cut at {length}");
        let again = load(&disk).unwrap();
        assert_eq!(again.recovery, Recovery::Clean, "cut at {length}");
        let mut expected = state(whole);
        expected.push(agent(9));
        assert_eq!(again.agents, expected, "cut at {length}");
    }
}

#[test]
fn blocks_that_power_loss_kept_from_the_last_batch_are_no_damage() {
    let (disk, journal) = with_journal();
    let ends = batch_ends(&journal);
    let last = ends[ends.len() - 2]..journal.len() - 2;

    for at in last {
        let mut holed = journal.clone();
        holed[at..at + 2].fill(0);
        let disk = disk.copy().with_file(JOURNAL, holed);

        let loaded = load(&disk).unwrap();

        assert_eq!(loaded.recovery, Recovery::Clean, "hole at {at}");
        assert_eq!(loaded.agents, state(ends.len() - 1), "hole at {at}");
    }
}

#[test]
fn bit_flipped_at_any_byte_of_a_journal_is_noticed_and_nothing_before_it_is_lost() {
    let (disk, journal) = with_journal();
    let ends = batch_ends(&journal);

    for byte in 0..journal.len() {
        // The one that tells capitals from small letters, and another.
        for bit in [5, byte % 5] {
            let mut damaged = journal.clone();
            damaged[byte] ^= 1 << bit;
            let disk = disk.copy().with_file(JOURNAL, damaged.clone());
            let shown = || format!("bit {bit} of byte {byte}");

            let loaded = load(&disk).unwrap();

            let before = ends.iter().filter(|end| **end <= byte).count();
            if loaded.recovery == Recovery::Clean {
                assert_eq!(loaded.agents, state(ends.len()), "{}", shown());
                continue;
            }
            assert_eq!(loaded.recovery.code(), "damaged_journal", "{}", shown());
            assert!(loaded.recovery.is_suspicious());
            assert_eq!(evidence(&disk), [damaged], "{}", shown());
            expect_believable(&loaded.agents, before, &shown());
            let again = load(&disk).unwrap();
            assert_eq!(again.recovery, Recovery::Clean, "told once: {}", shown());
            assert_eq!(again.agents, loaded.agents, "{}", shown());
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_damage_to_a_journal_invents_no_agent(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        filler in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (disk, journal) = with_journal();
        let mut damaged = journal.clone();
        for (index, byte) in edits {
            *index.get_mut(&mut damaged) = byte;
        }
        let at = cut.index(damaged.len());
        damaged.splice(at.., filler);
        let first = damaged.iter().zip(&journal).position(|(one, other)| one != other);
        let first = first.unwrap_or(damaged.len().min(journal.len()));
        let before = batch_ends(&journal).iter().filter(|end| **end <= first).count();
        let disk = disk.with_file(JOURNAL, damaged);

        let loaded = load(&disk).unwrap();

        expect_believable(&loaded.agents, before, "");
    }
}

#[test]
fn damage_in_the_middle_leaves_the_batches_after_it() {
    let (disk, journal) = with_journal();
    let ends = batch_ends(&journal);
    let mut damaged = journal;
    damaged[ends[0] + 200] ^= 1;
    let disk = disk.with_file(JOURNAL, damaged);

    let loaded = load(&disk).unwrap();

    let Recovery::DamagedJournal { agents, cause, .. } = &loaded.recovery else {
        panic!("{:?}", loaded.recovery);
    };
    assert_eq!(*agents, loaded.agents.len());
    assert!(cause.contains("agents.json.journal-1"), "{cause}");
    assert_eq!(loaded.agents, [agent(2), renamed(4)]);
}

#[test]
fn batch_that_is_missing_in_the_middle_is_damage() {
    let (disk, journal) = with_journal();
    let ends = batch_ends(&journal);
    let without = [&journal[..ends[0]], &journal[ends[1]..]].concat();
    let disk = disk.with_file(JOURNAL, without.clone());

    let loaded = load(&disk).unwrap();

    assert_eq!(loaded.recovery.code(), "damaged_journal");
    assert_eq!(evidence(&disk), [without]);
}

#[test]
fn damaged_file_is_replaced_by_its_backup_and_the_journals_and_nothing_is_lost() {
    for limits in [ALWAYS_A_JOURNAL, FOLDED_BY_EACH_COMMIT] {
        let disk = MemoryDisk::default();
        let mut store = open(&disk).with_limits(limits);
        store.load().unwrap();
        for number in 1..7 {
            store.commit(&[put(&agent(number))]).unwrap();
            if number == 1 {
                continue;
            }
            let expected: Vec<_> = (1..=number).map(agent).collect();
            for damaged in [Some("damaged"), None] {
                let copy = disk.copy();
                let copy = match damaged {
                    Some(text) => copy.with_file(FILE, text),
                    None => copy.without_file(FILE),
                };
                let loaded = load(&copy).unwrap();
                assert_eq!(loaded.recovery.code(), "recovered_from_backup");
                assert_eq!(loaded.agents, expected, "{limits:?}");
                let again = load(&copy).unwrap();
                assert_eq!(again.recovery, Recovery::Clean);
                assert_eq!(again.agents, expected, "{limits:?}");
            }
        }
    }
}

#[test]
fn damaged_file_and_damaged_journal_are_both_told_and_kept() {
    let (disk, journal) = with_journal();
    let ends = batch_ends(&journal);
    let mut damaged = journal;
    damaged[ends[0] + 200] ^= 1;
    let disk = disk
        .with_file(JOURNAL, damaged.clone())
        .with_file(FILE, "damaged");

    let loaded = load(&disk).unwrap();

    assert_eq!(loaded.recovery.code(), "recovered_from_backup");
    let said = loaded.recovery.to_string();
    assert!(said.contains("agents.json.journal-1 is damaged"), "{said}");
    assert_eq!(evidence(&disk), [b"damaged".to_vec(), damaged]);
    assert_eq!(loaded.agents, [agent(2), renamed(4)]);
}

#[test]
fn refused_batch_in_an_earlier_journal_does_not_come_back_through_the_backup() {
    let (disk, journal) = with_journal();
    let mut refused = journal.clone();
    // What an append leaves whose fsync failed: whole, and refused.
    refused.extend(batch_alone(&journal, 1, 6));
    let mut store = open(&disk);
    store.load().unwrap();
    store.commit(&[put(&agent(7))]).unwrap();
    drop(store);
    let disk = disk.with_file(JOURNAL, refused).with_file(FILE, "damaged");

    let loaded = load(&disk).unwrap();

    let mut expected = state(batch_ends(&journal).len());
    expected.push(agent(7));
    assert_eq!(loaded.agents, expected);
}

#[test]
fn journal_of_another_generation_or_file_is_ignored_and_later_removed() {
    let (disk, journal) = with_journal();
    let other = MemoryDisk::default();
    let mut store = open(&other);
    store.load().unwrap();
    store.commit(&[put(&agent(8))]).unwrap();
    drop(store);
    let foreign = [
        ("/data/agents.json.journal-7", journal.clone()),
        ("/data/agents.json.journal-1", journal.clone()),
        ("/data/agents.json.journal-2", journal),
    ];
    assert!(disk.files().contains_key(Path::new(JOURNAL)));

    for (path, journal) in foreign {
        let disk = other.copy().with_file(path, journal);

        let mut store = open(&disk);
        let loaded = store.load().unwrap();
        store.commit(&[put(&agent(9))]).unwrap();
        store.commit(&[]).unwrap();
        store.commit(&[]).unwrap();
        drop(store);

        assert_eq!(loaded.recovery, Recovery::Clean);
        assert_eq!(loaded.agents, [agent(8)], "{path}");
        let after = load(&disk).unwrap();
        assert_eq!(after.agents, [agent(8), agent(9)], "{path}");
        let journals = disk.files();
        let mut journals = journals.keys().filter(|path| is_journal(path));
        assert!(
            journals.all(|journal| journal != Path::new(path)),
            "{path} stays"
        );
    }
}

#[test]
fn newer_journal_is_refused_and_nothing_touched() {
    let (disk, journal) = with_journal();
    let text = String::from_utf8(journal).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let (start, covered) = first.split_at("{\"checksum\":\"crc32:".len());
    let covered = covered
        .split_at(8)
        .1
        .replace("\"schema_version\":1", "\"schema_version\":2");
    let sealed = crc32fast::hash(covered.as_bytes());
    let newer = format!("{start}{sealed:08x}{covered}\n{rest}");
    for file in [disk.files()[Path::new(FILE)].clone(), b"damaged".to_vec()] {
        let disk = disk.copy().with_file(JOURNAL, newer.clone());
        let disk = disk.with_file(FILE, file);
        let before = disk.files();

        let error = load(&disk).unwrap_err();

        let StoreError::NewerSchema { path, found: 2, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(path, Path::new(JOURNAL));
        assert_eq!(disk.files(), before);
    }
}

#[test]
fn record_in_a_journal_that_makes_no_sense_is_set_aside() {
    let (disk, journal) = with_journal();
    let text = String::from_utf8(journal).unwrap();
    let bad = text.replace("\"port\": 3,", "\"port\": 0,");
    assert_ne!(bad, text);
    let disk = disk.with_file(JOURNAL, resealed(&bad));

    let loaded = load(&disk).unwrap();

    let Recovery::Quarantined { records: 1, .. } = loaded.recovery else {
        panic!("{:?}", loaded.recovery);
    };
    assert_eq!(loaded.agents, [agent(2), renamed(4)]);
    assert_eq!(load(&disk).unwrap().recovery, Recovery::Clean);
}

/// Returns a disk whose file has agents 1 and 2, and its journal with four batches.
fn with_journal() -> (MemoryDisk, Vec<u8>) {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    store.load().unwrap();
    store.commit(&[put(&agent(1)), put(&agent(2))]).unwrap();
    for batch in batches() {
        store.commit(&batch).unwrap();
    }
    let journal = disk.files().remove(Path::new(JOURNAL)).unwrap();
    (disk, journal)
}

fn batches() -> [Vec<Change>; 4] {
    [
        vec![Change::Remove(agent(1).id)],
        vec![put(&agent(3))],
        vec![put(&agent(4)), put(&agent(5))],
        vec![put(&renamed(4)), Change::Remove(agent(5).id)],
    ]
}

/// Returns the agents after the first `batches`.
fn state(batches: usize) -> Vec<StoredAgent> {
    match batches {
        0 => vec![agent(1), agent(2)],
        1 => vec![agent(2)],
        2 => vec![agent(2), agent(3)],
        3 => vec![agent(2), agent(3), agent(4), agent(5)],
        _ => vec![agent(2), agent(3), renamed(4)],
    }
}

/// Each agent is as some batch says, and what the first `whole` batches say is not undone by
/// anything but the batches after them.
fn expect_believable(agents: &[StoredAgent], whole: usize, shown: &str) {
    for agent in agents {
        let is_known = (0..=4).any(|batches| state(batches).contains(agent));
        assert!(is_known, "invented {agent:?} {shown}");
    }
    for known in state(whole) {
        let later = (whole + 1..=4).map(state);
        let stays = later.into_iter().all(|later| later.contains(&known));
        assert!(!stays || agents.contains(&known), "lost {known:?} {shown}");
    }
    if whole > 0 {
        assert!(!agents.contains(&agent(1)), "came back {shown}");
    }
}

fn renamed(number: u16) -> StoredAgent {
    let mut agent = agent(number);
    "renamed".clone_into(&mut agent.machine_name);
    agent
}

/// Returns where each batch of the journal ends.
fn batch_ends(journal: &[u8]) -> Vec<usize> {
    let text = str::from_utf8(journal).unwrap();
    let begins = text.match_indices("{\"checksum\"").map(|(at, _)| at);
    begins.skip(1).chain([journal.len()]).collect()
}

/// Returns a batch that stores `agent(number)` as the one after the last of `journal`.
fn batch_alone(journal: &[u8], generation: u64, number: u16) -> Vec<u8> {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    let last = batch_ends(journal).len();
    for _ in 0..last {
        store.commit(&[Change::Remove(agent(99).id)]).unwrap();
    }
    store.commit(&[put(&agent(number))]).unwrap();
    let text = disk.files().remove(Path::new(JOURNAL)).unwrap();
    let file = disk.files().remove(Path::new(FILE)).unwrap();
    let rebound = rebind(&text, generation, &String::from_utf8(file).unwrap()).unwrap();
    let ends = batch_ends(&rebound);
    rebound[ends[last - 1]..].to_vec()
}

/// Returns a journal whose text was changed, with checksums that are right again.
fn resealed(text: &str) -> String {
    let mut sealed = String::new();
    let mut rest = text;
    while let Some((line, after)) = rest.split_once('\n') {
        let bytes = serde_json::from_str::<serde_json::Value>(line).unwrap()["bytes"]
            .as_u64()
            .unwrap();
        let (body, after) = after.split_at(usize::try_from(bytes).unwrap());
        let (start, covered) = line.split_at("{\"checksum\":\"crc32:".len());
        let (covered, _) = covered.split_at(8).1.rsplit_once("crc32:").unwrap();
        let covered = format!(
            "{covered}crc32:{:08x}\"}}",
            crc32fast::hash(body.as_bytes())
        );
        let line = crc32fast::hash(covered.as_bytes());
        write!(sealed, "{start}{line:08x}{covered}\n{body}").unwrap();
        rest = after;
    }
    sealed
}

fn open(disk: &MemoryDisk) -> JsonStore {
    let store = JsonStore::on(Arc::new(disk.clone()), Path::new("/data"), None);
    store.with_limits(ALWAYS_A_JOURNAL)
}

fn load(disk: &MemoryDisk) -> Result<Loaded, StoreError> {
    open(disk).load()
}

fn is_journal(path: &Path) -> bool {
    path.to_string_lossy().contains(".journal-")
}

fn evidence(disk: &MemoryDisk) -> Vec<Vec<u8>> {
    let is_evidence = |path: &PathBuf| path.to_string_lossy().contains(".corrupt-");
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| is_evidence(path))
        .map(|(_, contents)| contents)
        .collect()
}
