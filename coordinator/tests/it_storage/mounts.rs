//! Full, read-only and single-file mounts, with real ones; that takes root, else each test says
//! loudly that it was skipped.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::{JsonStore, OpenError};
use ollama_coordinator::storage::{self, Store as _, StoreError};
use ollama_coordinator_common::atomic_file::file_system::Disk;
use tempfile::TempDir;

use crate::support::{names, open_and_load, put};

#[test]
fn full_disk_keeps_the_old_registry_and_heals_when_there_is_room() {
    let Some(mount) = Mount::tmpfs("64k") else {
        return;
    };
    let (mut store, _) = open_and_load(&mount.path);
    store.commit(&[put(&agent(1))]).unwrap();
    let filler = mount.path.join("filler");
    let error = fs::write(&filler, vec![0; 128 * 1024]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);

    let refused = store.commit(&[put(&agent(2))]).unwrap_err();

    assert_eq!(kind(&refused), io::ErrorKind::StorageFull, "{refused:?}");
    assert_eq!(
        names(&mount.path),
        ["agents.json", "coordinator.lock", "filler"]
    );
    fs::remove_file(filler).unwrap();
    store.commit(&[put(&agent(3))]).unwrap();
    drop(store);
    assert_eq!(open_and_load(&mount.path).1.agents, [agent(1), agent(3)]);
}

#[test]
fn disk_that_becomes_read_only_refuses_commits_until_it_is_writable() {
    let Some(mount) = Mount::tmpfs("1m") else {
        return;
    };
    // Without the lock, whose open file would keep the mount from becoming read-only.
    let mut store = JsonStore::on(Arc::new(Disk), &mount.path, None);
    store.load().unwrap();
    store.commit(&[put(&agent(1))]).unwrap();
    mount.remount("ro");

    let refused = store.commit(&[put(&agent(2))]).unwrap_err();
    assert_eq!(
        kind(&refused),
        io::ErrorKind::ReadOnlyFilesystem,
        "{refused:?}"
    );

    mount.remount("rw");
    store.commit(&[put(&agent(3))]).unwrap();
    assert_eq!(open_and_load(&mount.path).1.agents, [agent(1), agent(3)]);
}

#[test]
fn read_only_directory_is_refused_at_start_with_its_path() {
    let Some(mount) = Mount::tmpfs("1m") else {
        return;
    };
    mount.remount("ro");

    let error = storage::open(&mount.path, None).unwrap_err();

    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
    assert!(
        error.to_string().contains(mount.path.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn registry_mounted_as_a_single_file_is_refused_with_advice() {
    let Some(mount) = Mount::tmpfs("1m") else {
        return;
    };
    let (file, outside) = (mount.path.join("agents.json"), mount.path.join("outside"));
    for path in [&file, &outside] {
        fs::write(
            path,
            r#"{"format": "agents", "schema_version": 1, "agents": []}"#,
        )
        .unwrap();
    }
    run(
        "mount",
        ["--bind".as_ref(), outside.as_os_str(), file.as_os_str()],
    )
    .unwrap();

    let (mut store, _) = open_and_load(&mount.path);
    let refused = store.commit(&[put(&agent(1))]);
    drop(store);
    run("umount", [&file]).unwrap();

    let StoreError::Write(error) = refused.unwrap_err() else {
        panic!("only the rename can fail");
    };
    assert!(
        error.to_string().contains("mount its directory instead"),
        "{error}"
    );
    assert_eq!(error.source.kind(), io::ErrorKind::ResourceBusy);
}

fn kind(error: &StoreError) -> io::ErrorKind {
    let StoreError::Write(error) = error else {
        panic!("{error:?}");
    };
    error.source.kind()
}

/// A small file system of its own, unmounted when dropped.
struct Mount {
    path: PathBuf,
    _directory: TempDir,
}

impl Mount {
    fn tmpfs(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap();
        let options = format!("size={size},mode=700");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(AsRef::as_ref);
        let arguments = arguments.into_iter().chain([path.as_os_str()]);
        if let Err(reason) = run("mount", arguments) {
            eprintln!("SKIPPED: this test mounts a file system, which needs root: {reason}");
            return None;
        }
        Some(Self {
            path,
            _directory: directory,
        })
    }

    fn remount(&self, mode: &str) {
        let options = format!("remount,{mode}");
        let path = self.path.as_os_str();
        run("mount", ["-o".as_ref(), options.as_ref(), path]).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(reason) = run("umount", ["-l".as_ref(), self.path.as_os_str()]) {
            eprintln!("could not unmount {}: {reason}", Path::display(&self.path));
        }
    }
}

fn run<A: AsRef<std::ffi::OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
