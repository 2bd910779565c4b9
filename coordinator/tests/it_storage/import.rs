//! Taking over an earlier product's registry, once, leaving the original alone.

use std::fs;
use std::path::Path;

use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{self, Loaded, Store as _};

use crate::support::{names, put};

const EARLIER: &str = r#"[{
    "id": "00000000-0000-0000-0000-000000000009", "hostname": "old", "ip_address": "192.168.1.5",
    "port": 11434, "ollama_version": "0.1.0", "status": "Online",
    "last_heartbeat": "2025-10-30T01:02:03Z", "registered_at": "2025-10-29T00:00:00Z"
}, {"id": "nonsense"}]"#;

#[test]
fn earlier_registry_is_taken_over_once_and_left_alone() {
    let (directory, earlier) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let earlier = earlier.path().join("agents.json");
    fs::write(&earlier, EARLIER).unwrap();

    let first = load(directory.path(), &earlier);
    fs::write(&earlier, "[]").unwrap();
    let second = load(directory.path(), &earlier);

    assert_eq!(
        first.recovery,
        Recovery::Imported {
            path: earlier.clone(),
            agents: 1,
            skipped: 1
        }
    );
    assert_eq!(first.agents[0].machine_name, "old");
    assert_eq!(second.recovery, Recovery::Clean);
    assert_eq!(second.agents, first.agents, "the import is durable");
    assert_eq!(fs::read(&earlier).unwrap(), b"[]");
}

#[test]
fn own_registry_or_its_backup_comes_before_any_import() {
    let (directory, earlier) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let earlier = earlier.path().join("agents.json");
    fs::write(&earlier, EARLIER).unwrap();
    let mut store = storage::open(directory.path(), None).unwrap();
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    store.commit(&[]).unwrap();
    drop(store);

    assert_eq!(load(directory.path(), &earlier).agents, [agent(1)]);
    fs::remove_file(directory.path().join("agents.json")).unwrap();
    assert_eq!(load(directory.path(), &earlier).agents, [agent(1)]);
}

#[test]
fn missing_or_senseless_earlier_registry_is_a_first_start() {
    let directory = tempfile::tempdir().unwrap();
    let earlier = directory.path().join("earlier.json");

    assert_eq!(load(directory.path(), &earlier).recovery, Recovery::New);
    fs::write(&earlier, "{").unwrap();
    assert_eq!(load(directory.path(), &earlier).recovery, Recovery::New);

    assert_eq!(fs::read(&earlier).unwrap(), b"{");
}

#[test]
fn earlier_format_in_our_own_place_is_brought_up_to_date_and_a_copy_kept() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("agents.json"), EARLIER).unwrap();

    let loaded = load(directory.path(), Path::new("/nowhere"));

    assert_eq!(loaded.agents[0].machine_name, "old");
    assert_eq!(loaded.recovery.code(), "imported");
    let copy = names(directory.path())
        .into_iter()
        .find(|name| name.starts_with("agents.json.imported-"))
        .expect("a copy is kept");
    assert_eq!(
        fs::read_to_string(directory.path().join(copy)).unwrap(),
        EARLIER
    );
    assert_eq!(
        load(directory.path(), Path::new("/nowhere")).recovery,
        Recovery::Clean
    );
}

fn load(directory: &Path, earlier: &Path) -> Loaded {
    let mut store = storage::open(directory, Some(earlier)).unwrap();
    store.load().unwrap()
}
