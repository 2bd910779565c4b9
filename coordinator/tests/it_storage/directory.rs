//! The data directory: made for the owner, held by one process, cleaned, and followed when it
//! is elsewhere.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::OpenError;
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{self, Store as _};

use crate::support::{names, open_and_load, put};

/// Tells a second run of this test binary which directory to hold.
const HOLD: &str = "STORAGE_TEST_HOLD_DIRECTORY";

#[test]
fn files_and_directories_are_for_the_owner_only() {
    let above = tempfile::tempdir().unwrap();
    let directory = above.path().join("not/yet/there");

    let (mut store, loaded) = open_and_load(&directory);
    store.commit(&[put(&agent(1))]).unwrap();

    assert_eq!(loaded.recovery, Recovery::New);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&above.path().join("not")), 0o700);
    assert_eq!(mode(&directory.join("agents.json")), 0o600);
}

#[test]
fn lock_file_names_the_process_that_holds_the_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let held_for_another = std::env::var_os(HOLD);
    let directory = held_for_another
        .as_deref()
        .map_or(temporary.path(), Path::new);

    let _store = storage::open(directory, None).unwrap();

    let named = fs::read_to_string(directory.join("coordinator.lock")).unwrap();
    assert_eq!(named.trim(), std::process::id().to_string());
    if held_for_another.is_some() {
        println!("\nheld");
        // Until the other end is closed, or this process killed.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    }
}

#[test]
fn second_process_is_refused_by_pid_until_the_first_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut holder = hold_in_another_process(directory.path());

    let refused = storage::open(directory.path(), None).unwrap_err();
    let pid = holder.id();
    holder.kill().unwrap();
    holder.wait().unwrap();

    let OpenError::Locked { pid: named, path } = &refused else {
        panic!("{refused:?}");
    };
    assert_eq!(*named, Some(pid));
    assert!(path.ends_with("coordinator.lock"), "{}", path.display());
    assert!(refused.to_string().contains(&pid.to_string()), "{refused}");
    storage::open(directory.path(), None).expect("free after SIGKILL");
}

#[test]
fn dropped_store_frees_its_directory() {
    let directory = tempfile::tempdir().unwrap();

    let store = storage::open(directory.path(), None).unwrap();
    assert!(storage::open(directory.path(), None).is_err());
    drop(store);

    storage::open(directory.path(), None).expect("nobody holds it");
}

#[test]
fn stale_temporary_files_are_removed_and_never_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open_and_load(directory.path());
    store.commit(&[put(&agent(1))]).unwrap();
    drop(store);
    let current = fs::read(directory.path().join("agents.json")).unwrap();
    for name in [
        ".agents.json.tmp.1.0",
        ".agents.json.tmp.1.0.bak",
        ".agents.json.tmp.77.3",
    ] {
        fs::write(directory.path().join(name), &current).unwrap();
    }
    fs::remove_file(directory.path().join("agents.json")).unwrap();
    fs::write(directory.path().join("unrelated.tmp"), "stays").unwrap();

    let (_store, loaded) = open_and_load(directory.path());

    assert_eq!(loaded.agents, []);
    assert_eq!(
        names(directory.path()),
        ["coordinator.lock", "unrelated.tmp"]
    );
}

#[test]
fn symbolic_link_is_followed_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let target = elsewhere.path().join("registry.json");
    symlink(&target, elsewhere.path().join("hop")).unwrap();
    symlink(
        elsewhere.path().join("hop"),
        directory.path().join("agents.json"),
    )
    .unwrap();

    let (mut store, loaded) = open_and_load(directory.path());
    assert_eq!(loaded.recovery, Recovery::New, "the link leads nowhere yet");
    store.commit(&[put(&agent(1))]).unwrap();
    store.commit(&[put(&agent(2))]).unwrap();
    drop(store);

    assert!(directory.path().join("agents.json").is_symlink());
    assert_eq!(
        names(elsewhere.path()),
        ["hop", "registry.json", "registry.json.bak"]
    );
    assert_eq!(
        open_and_load(directory.path()).1.agents,
        [agent(1), agent(2)]
    );

    fs::write(&target, "damaged").unwrap();
    let loaded = open_and_load(directory.path()).1;
    assert_eq!(loaded.agents, [agent(1)], "the backup is beside the target");
    assert!(directory.path().join("agents.json").is_symlink());
}

#[test]
fn registry_deleted_while_running_is_written_anew_in_full() {
    let directory = tempfile::tempdir().unwrap();
    let (mut store, _) = open_and_load(directory.path());
    store.commit(&[put(&agent(1))]).unwrap();
    for name in ["agents.json", "coordinator.lock"] {
        fs::remove_file(directory.path().join(name)).unwrap();
    }

    store.commit(&[put(&agent(2))]).unwrap();
    drop(store);

    let loaded = open_and_load(directory.path()).1;
    assert_eq!(
        (loaded.agents, loaded.recovery),
        (vec![agent(1), agent(2)], Recovery::Clean)
    );
}

#[test]
fn directory_that_cannot_be_made_is_an_error_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "in the way").unwrap();

    for path in [file.clone(), file.join("below")] {
        let error = storage::open(&path, None).unwrap_err();

        assert!(
            matches!(error, OpenError::CreateDirectory { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("file"), "{error}");
    }
    assert_eq!(fs::read(file).unwrap(), b"in the way");
}

fn hold_in_another_process(directory: &Path) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this)
        .args([
            "--exact",
            "directory::lock_file_names_the_process_that_holds_the_directory",
        ])
        .arg("--nocapture")
        .env(HOLD, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let held = output.lines().any(|line| line.unwrap() == "held");
    assert!(
        held,
        "the other process ended without holding the directory"
    );
    child
}
