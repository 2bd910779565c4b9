//! Damaged registries: nothing panics, nothing is loaded as something else, evidence stays.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::JsonStore;
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Loaded, Store as _, StoreError};
use ollama_coordinator_common::id::AgentId;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::memory_disk::MemoryDisk;
use crate::support::put;

const FILE: &str = "/data/agents.json";
const BACKUP: &str = "/data/agents.json.bak";

#[test]
fn truncated_registry_is_kept_as_evidence_and_the_backup_loaded() {
    let (file, backup) = two_generations();

    for length in 0..file.len() - "\n".len() {
        let damaged = &file[..length];
        expect_backup_or_unharmed(damaged, &backup);
    }
}

#[test]
fn registry_with_any_bit_flipped_is_never_loaded_as_something_else() {
    let (file, backup) = two_generations();

    for byte in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[byte] ^= 1 << bit;
            expect_backup_or_unharmed(&damaged, &backup);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_damage_is_never_loaded_as_something_else(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        filler in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let (file, backup) = two_generations();
        let mut damaged = file;
        for (index, byte) in edits {
            *index.get_mut(&mut damaged) = byte;
        }
        let at = cut.index(damaged.len());
        damaged.splice(at.., filler);

        expect_backup_or_unharmed(&damaged, &backup);
    }

    #[test]
    fn arbitrary_bytes_never_panic_and_are_kept(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let disk = MemoryDisk::default().with_file(FILE, bytes.clone());

        let loaded = load(&disk).unwrap();

        prop_assert!(matches!(loaded.recovery, Recovery::Empty { .. }), "{:?}", loaded.recovery);
        prop_assert_eq!(evidence(&disk, ".corrupt-"), [bytes]);
    }

    #[test]
    fn bad_records_are_set_aside_and_the_others_loaded(
        records in prop::collection::vec(any_record(), 0..12)
    ) {
        let text = json!({
            "format": "agents", "schema_version": 1,
            "agents": records.iter().map(|(_, record)| record).collect::<Vec<_>>(),
        });
        let disk = MemoryDisk::default().with_file(FILE, text.to_string());

        let loaded = load(&disk).unwrap();

        let good: BTreeMap<_, _> = records
            .iter()
            .filter_map(|(agent, _)| agent.clone())
            .map(|agent| (agent.id, agent))
            .collect();
        let bad = records.len() - good.len();
        let found: BTreeMap<_, _> =
            loaded.agents.iter().map(|agent| (agent.id, agent.clone())).collect();
        prop_assert_eq!(found, good);
        let kept = evidence(&disk, ".quarantined-");
        if bad == 0 {
            prop_assert_eq!(loaded.recovery, Recovery::Clean);
            prop_assert!(kept.is_empty());
        } else {
            let [kept] = kept.as_slice() else { panic!("one file of evidence, not {kept:?}") };
            let kept: Vec<Value> = serde_json::from_slice(kept).unwrap();
            prop_assert_eq!(kept.len(), bad);
            prop_assert_eq!(load(&disk).unwrap().recovery, Recovery::Clean, "set aside only once");
        }
    }

    #[test]
    fn every_entry_of_an_earlier_registry_is_taken_over_or_counted_as_skipped(
        entries in prop::collection::vec(any_earlier_entry(), 0..8),
    ) {
        let text = Value::from(entries.clone()).to_string();
        let disk = MemoryDisk::default().with_file(FILE, text);

        let loaded = load(&disk).unwrap();

        let Recovery::Imported { agents, skipped, .. } = loaded.recovery else {
            panic!("{:?}", loaded.recovery);
        };
        prop_assert_eq!(agents, loaded.agents.len());
        prop_assert!(agents + skipped <= entries.len());
        prop_assert_eq!(agents == 0, skipped == entries.len());
        let again = load(&disk).unwrap();
        prop_assert_eq!(again.recovery, Recovery::Clean);
        prop_assert_eq!(again.agents, loaded.agents);
    }

    #[test]
    fn fields_of_a_newer_coordinator_survive_a_rewrite(
        name in "[a-z_]{1,8}".prop_map(|name| format!("new_{name}")), value in any_json(),
    ) {
        let mut record = serde_json::to_value(agent(1)).unwrap();
        record[&name] = value.clone();
        let mut document = json!({
            "format": "agents", "schema_version": 1, "agents": [record],
        });
        document[&name] = value.clone();
        let disk = MemoryDisk::default().with_file(FILE, document.to_string());

        let mut store = open(&disk);
        let mut changed = store.load().unwrap().agents.remove(0);
        changed.epoch += 1;
        store.commit(&[put(&changed), put(&agent(2))]).unwrap();

        let text = disk.files().remove(Path::new(FILE)).unwrap();
        let rewritten: Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(&rewritten[&name], &value);
        prop_assert_eq!(&rewritten["agents"][0][&name], &value);
        prop_assert_eq!(&rewritten["agents"][0]["epoch"], 1);
        prop_assert_eq!(load(&disk).unwrap().recovery, Recovery::Clean);
    }
}

#[test]
fn empty_file_is_damage_and_not_an_empty_registry() {
    let (_, backup) = two_generations();

    for contents in [&b""[..], b"\n", b"\0\0\0\0"] {
        let disk = MemoryDisk::default()
            .with_file(FILE, contents)
            .with_file(BACKUP, backup.clone());

        let loaded = load(&disk).unwrap();

        assert_eq!(loaded.agents, [agent(1)]);
        assert!(
            loaded.recovery.to_string().contains("it is empty"),
            "{}",
            loaded.recovery
        );
        assert_eq!(evidence(&disk, ".corrupt-"), [contents]);
    }
}

#[test]
fn file_and_backup_damaged_starts_empty_and_keeps_both() {
    let disk = MemoryDisk::default()
        .with_file(FILE, "{")
        .with_file(BACKUP, "[");

    let loaded = load(&disk).unwrap();

    assert_eq!(loaded.agents, []);
    assert_eq!(loaded.recovery.code(), "recovered_empty");
    assert!(loaded.recovery.is_suspicious());
    assert_eq!(
        evidence(&disk, ".corrupt-"),
        ["{", "["].map(|text| text.as_bytes().to_vec())
    );
    assert_eq!(
        load(&disk).unwrap().recovery,
        Recovery::Clean,
        "the empty registry is stored"
    );
}

#[test]
fn missing_file_is_replaced_by_its_backup() {
    let (_, backup) = two_generations();
    let disk = MemoryDisk::default().with_file(BACKUP, backup.clone());

    let loaded = load(&disk).unwrap();

    assert_eq!(loaded.agents, [agent(1)]);
    assert_eq!(loaded.recovery.code(), "recovered_from_backup");
    assert_eq!(disk.files()[Path::new(BACKUP)], backup);
    assert_eq!(
        load(&disk).unwrap().recovery,
        Recovery::Clean,
        "the file is there again"
    );
}

#[test]
fn newer_schema_is_refused_and_nothing_touched() {
    let (_, backup) = two_generations();
    let newer = r#"{"format": "agents", "schema_version": 2, "agents": {"in": "another shape"}}"#;
    let beside = "/data/.agents.json.tmp.1.0";
    for disk in [
        MemoryDisk::default()
            .with_file(FILE, newer)
            .with_file(BACKUP, backup),
        MemoryDisk::default()
            .with_file(FILE, "damaged")
            .with_file(BACKUP, newer),
        MemoryDisk::default().with_file(FILE, newer.replace("agents\": {", "a\": {")),
    ] {
        let disk = disk.with_file(beside, "half");
        let before = disk.files();

        let error = load(&disk).unwrap_err();

        assert!(
            matches!(
                error,
                StoreError::NewerSchema {
                    found: 2,
                    supported: 1,
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(error.to_string().contains("/data/agents.json"), "{error}");
        assert_eq!(disk.files(), before);
    }
}

#[test]
fn of_two_records_with_one_id_the_newer_epoch_is_loaded() {
    let mut newer = agent(1);
    newer.epoch = 7;
    let records = [agent(1), newer.clone(), agent(1)];
    let text = json!({"format": "agents", "schema_version": 1, "agents": records});
    let disk = MemoryDisk::default().with_file(FILE, text.to_string());

    let loaded = load(&disk).unwrap();

    assert_eq!(loaded.agents, [newer]);
    let Recovery::Quarantined { records: 2, .. } = loaded.recovery else {
        panic!("{:?}", loaded.recovery);
    };
}

#[test]
fn stored_ids_are_compared_as_ids_and_not_as_text() {
    let mut shouted = serde_json::to_value(agent(10)).unwrap();
    shouted["id"] = json!(AgentId::from_u128(10).to_string().to_uppercase());
    let records = [serde_json::to_value(agent(10)).unwrap(), shouted];
    let text = json!({"format": "agents", "schema_version": 1, "agents": records});
    let disk = MemoryDisk::default().with_file(FILE, text.to_string());

    assert_eq!(load(&disk).unwrap().agents, [agent(10)]);
}

#[test]
fn registry_edited_by_hand_is_taken_once_its_checksum_is_removed() {
    let (file, _) = two_generations();
    let text = String::from_utf8(file).unwrap();
    let edited = text.replace("machine-2", "renamed");
    let (before, after) = edited.split_once("  \"checksum\"").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    let disk = MemoryDisk::default().with_file(FILE, format!("{before}{after}"));

    let loaded = load(&disk).unwrap();

    assert_eq!(loaded.recovery, Recovery::Clean);
    assert_eq!(loaded.agents[1].machine_name, "renamed");
}

#[test]
fn at_most_five_damaged_files_are_kept_and_the_newest_is_one_of_them() {
    let disk = MemoryDisk::default();

    for number in 0..8 {
        let disk = disk.clone().with_file(FILE, format!("damaged {number}"));
        load(&disk).unwrap();
    }

    let kept: Vec<_> = (3..8)
        .map(|number| format!("damaged {number}").into_bytes())
        .collect();
    assert_eq!(evidence(&disk, ".corrupt-"), kept);
}

#[test]
fn registry_is_readable_with_a_field_to_a_line() {
    let (file, _) = two_generations();

    let text = String::from_utf8(file).unwrap();
    let lines: Vec<_> = text.lines().collect();

    assert_eq!(
        lines[..4],
        [
            "{",
            "  \"format\": \"agents\",",
            "  \"schema_version\": 1,",
            "  \"generation\": 2,"
        ]
    );
    assert!(
        lines[5].starts_with("  \"checksum\": \"crc32:"),
        "{}",
        lines[5]
    );
    assert_eq!(
        lines[6..9],
        [
            "  \"agents\": [",
            "    {",
            "      \"id\": \"00000000-0000-0000-0000-000000000001\","
        ]
    );
    assert_eq!(lines[lines.len() - 3..], ["    }", "  ]", "}"]);
}

/// Returns a registry of two agents and, as its backup, one of the first alone.
fn two_generations() -> (Vec<u8>, Vec<u8>) {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    store.commit(&[put(&agent(2))]).unwrap();
    let mut files = disk.files();
    let mut take = |path: &str| files.remove(Path::new(path)).unwrap();
    (take(FILE), take(BACKUP))
}

/// The damaged file is set aside for the backup, or refused untouched, or its agents are unharmed.
fn expect_backup_or_unharmed(damaged: &[u8], backup: &[u8]) {
    let disk = MemoryDisk::default()
        .with_file(FILE, damaged)
        .with_file(BACKUP, backup);
    let before = disk.files();
    let shown = || String::from_utf8_lossy(damaged).into_owned();

    match load(&disk) {
        Ok(Loaded {
            agents,
            recovery: Recovery::FromBackup { .. },
            ..
        }) => {
            assert_eq!(agents, [agent(1)], "{}", shown());
            assert_eq!(evidence(&disk, ".corrupt-"), [damaged], "{}", shown());
        }
        Ok(Loaded {
            agents, recovery, ..
        }) => {
            assert_eq!(recovery, Recovery::Clean, "{}", shown());
            assert_eq!(agents, [agent(1), agent(2)], "{}", shown());
        }
        Err(StoreError::NewerSchema { .. }) => assert_eq!(disk.files(), before, "{}", shown()),
        Err(error) => panic!("{error:?}: {}", shown()),
    }
}

fn open(disk: &MemoryDisk) -> JsonStore {
    JsonStore::on(Arc::new(disk.clone()), Path::new("/data"), None)
}

fn load(disk: &MemoryDisk) -> Result<Loaded, StoreError> {
    open(disk).load()
}

fn evidence(disk: &MemoryDisk, kind: &str) -> Vec<Vec<u8>> {
    let is_evidence = |path: &PathBuf| path.to_string_lossy().contains(kind);
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| is_evidence(path))
        .map(|(_, contents)| contents)
        .collect()
}

/// A record, with the agent in it when it is a good one. Good ones with one id are equal.
fn any_record() -> impl Strategy<Value = (Option<StoredAgent>, Value)> {
    let good = (1_u16..20).prop_map(|number| {
        let agent = agent(number);
        (Some(agent.clone()), serde_json::to_value(agent).unwrap())
    });
    let bad_field = (
        prop::sample::select(vec![
            "id",
            "machine_name",
            "ip_address",
            "port",
            "last_seen",
        ]),
        prop_oneof![Just(Value::Null), Just(json!("x:y")), Just(json!(-1))],
    );
    let bad = bad_field.prop_map(|(field, value)| {
        let mut record = serde_json::to_value(agent(1)).unwrap();
        let value = if field == "machine_name" {
            json!(["x"])
        } else {
            value
        };
        record[field] = value;
        (None, record)
    });
    let port_zero = Just(()).prop_map(|()| {
        let mut record = serde_json::to_value(agent(1)).unwrap();
        record["port"] = json!(0);
        (None, record)
    });
    let shapeless = prop_oneof![
        Just(json!(7)),
        Just(json!([])),
        Just(json!({})),
        Just(Value::Null)
    ]
    .prop_map(|record| (None, record));
    prop_oneof![4 => good, 1 => bad, 1 => port_zero, 1 => shapeless]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An entry as the earlier product wrote it, with anything in place of some of its fields.
fn any_earlier_entry() -> impl Strategy<Value = Value> {
    let names = vec![
        "id",
        "hostname",
        "ip_address",
        "port",
        "ollama_version",
        "last_heartbeat",
        "registered_at",
        "loaded_models",
        "gpu_devices",
        "system_info",
        "notes",
    ];
    let odd = prop::collection::vec((prop::sample::select(names), any_json()), 0..3);
    (1_u128..5, odd).prop_map(|(number, odd)| {
        let mut entry = json!({
            "id": AgentId::from_u128(number).to_string(), "hostname": "old",
            "ip_address": "192.168.1.5", "port": 11434, "last_heartbeat": "2025-10-30T01:02:03Z",
        });
        for (name, value) in odd {
            entry[name] = value;
        }
        entry
    })
}
