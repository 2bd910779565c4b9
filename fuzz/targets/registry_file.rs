//! A registry file of any bytes beside a good backup: nothing panics, the backup is used or
//! needless, and what was damaged stays as evidence. Then the same bytes as the end of a journal:
//! nothing panics, what was acknowledged before them is there, and nobody else unless they say so.
#![no_main]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::{JsonStore, Limits};
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Change, Store, StoreError};
use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use parking_lot::Mutex;

const FILE: &str = "/data/agents.json";
const BACKUP: &str = "/data/agents.json.bak";

const JOURNAL: &str = "/data/agents.json.journal-1";
const ALWAYS_A_JOURNAL: Limits = Limits { small_file: 0, journal_percent: u64::MAX };

fuzz_target!(|bytes: &[u8]| {
    file(bytes);
    journal(bytes);
});

fn file(bytes: &[u8]) {
    let good = Disk::default();
    let mut store = open(&good);
    store.load().expect("an empty directory is a new registry");
    store.commit(&[Change::Put(Arc::new(agent(1)))]).expect("memory can be written");
    let backup = good.0.lock()[Path::new(FILE)].clone();

    let disk = Disk::default();
    disk.0.lock().insert(FILE.into(), bytes.to_vec());
    disk.0.lock().insert(BACKUP.into(), backup);
    match open(&disk).load() {
        Ok(loaded) => match loaded.recovery {
            Recovery::FromBackup { agents, .. } => {
                assert_eq!((agents, loaded.agents), (1, vec![agent(1)]));
                let is_kept = disk.0.lock().values().any(|contents| contents == bytes);
                assert!(is_kept, "damaged bytes are kept");
            }
            Recovery::Clean | Recovery::Quarantined { .. } | Recovery::Imported { .. } => {}
            other => panic!("{other:?}"),
        },
        Err(StoreError::NewerSchema { .. }) => return,
        Err(error) => panic!("{error:?}"),
    }
    let again = open(&disk).load().expect("what was loaded can be loaded again");
    assert_eq!(again.recovery, Recovery::Clean);
}

fn journal(bytes: &[u8]) {
    let disk = Disk::default();
    let mut store = open(&disk).with_limits(ALWAYS_A_JOURNAL);
    store.load().expect("an empty directory is a new registry");
    for number in 1..3 {
        store.commit(&[Change::Put(Arc::new(agent(number)))]).expect("memory can be written");
    }
    drop(store);
    let mut files = disk.0.lock();
    files.get_mut(Path::new(JOURNAL)).expect("the second agent is in it").extend(bytes);
    drop(files);

    let loaded = match open(&disk).load() {
        Ok(loaded) => loaded,
        Err(StoreError::NewerSchema { .. }) => return,
        Err(error) => panic!("{error:?}"),
    };
    let is_plain = !bytes.windows(10).any(|window| window == b"{\"checksum");
    assert!(!is_plain || loaded.agents == [agent(1), agent(2)]);
    let again = open(&disk).load().expect("what was loaded can be loaded again");
    assert_eq!(again.recovery, Recovery::Clean);
    assert_eq!(again.agents, loaded.agents);
}

fn open(disk: &Disk) -> JsonStore {
    JsonStore::on(Arc::new(disk.clone()), Path::new("/data"), None)
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<BTreeMap<PathBuf, Vec<u8>>>>);

impl FileSystem for Disk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.0.lock().insert(path.to_owned(), Vec::new());
        Ok(Box::new(OpenFile(self.clone(), path.to_owned())))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.lock().get(path).cloned().ok_or(ErrorKind::NotFound.into())
    }

    fn names(&self, _directory: &Path) -> io::Result<Vec<OsString>> {
        let files = self.0.lock();
        Ok(files.keys().filter_map(|path| Some(path.file_name()?.to_owned())).collect())
    }

    fn read_link(&self, _path: &Path) -> io::Result<PathBuf> {
        Err(ErrorKind::InvalidInput.into())
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        let contents = self.read(original)?;
        self.0.lock().insert(link.to_owned(), contents);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let contents = self.0.lock().remove(from).ok_or(ErrorKind::NotFound)?;
        self.0.lock().insert(to.to_owned(), contents);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.lock().remove(path).map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _directory: &Path) -> io::Result<()> {
        Ok(())
    }
}

struct OpenFile(Disk, PathBuf);

impl Write for OpenFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut files = self.0.0.lock();
        files.entry(self.1.clone()).or_default().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for OpenFile {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
