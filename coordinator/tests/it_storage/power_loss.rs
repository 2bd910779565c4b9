//! Power loss between any two file operations, on turmoil's simulated file system, against the
//! real store. The right recipe loses nothing; recipes broken on purpose show that it would be
//! seen if it did: with the whole file alone, and with a journal after it. `POWER_LOSS_SEEDS` sets how many runs to make.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::{JsonStore, Limits};
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Change, Store as _, StoreError};
use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use ollama_coordinator_common::id::AgentId;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rstest::rstest;
use turmoil::fs::shim::std::fs as simulated;

use crate::support::put;
use crate::support::rebind::rebind;

const DEFAULT_SEEDS: u64 = 150;
/// A broken recipe shows within far fewer runs than the right one deserves.
const SEEDS_PER_BROKEN_SEED: u64 = 5;
const CRASHES_PER_SEED: u64 = 10;
const DIRECTORY: &str = "/data";
const FILE: &str = "/data/agents.json";
const JOURNAL: Limits = Limits {
    small_file: 0,
    journal_percent: 100,
};
/// Files of the simulated fleets are now smaller, now larger.
const JOURNAL_AT_TIMES: Limits = Limits {
    small_file: 8_000,
    journal_percent: 50,
};

#[test]
fn power_loss_at_any_moment_loses_and_corrupts_nothing() {
    let harm = run_seeds(Recipe::Right, Limits::default());

    assert_eq!((harm.lost, harm.corrupt), (0, 0), "{harm:?}");
    assert!(
        harm.acknowledged > harm.crashes,
        "too few commits to mean anything: {harm:?}"
    );
}

#[rstest]
#[case::always_a_journal(JOURNAL)]
#[case::a_journal_at_times(JOURNAL_AT_TIMES)]
fn power_loss_with_a_journal_loses_and_corrupts_nothing(#[case] limits: Limits) {
    let harm = run_seeds(Recipe::Right, limits);

    assert_eq!((harm.lost, harm.corrupt), (0, 0), "{harm:?}");
    assert!(
        harm.acknowledged > harm.crashes,
        "too few commits to mean anything: {harm:?}"
    );
}

#[test]
fn missing_fsync_of_the_journal_is_caught() {
    let harm = run_seeds(Recipe::NoJournalSync, JOURNAL);

    assert!(harm.lost > 0, "{harm:?}");
}

#[test]
fn missing_fsync_of_the_directory_of_a_new_journal_is_caught() {
    let harm = run_seeds(Recipe::NoJournalDirectorySync, JOURNAL);

    assert!(harm.lost > 0, "{harm:?}");
}

#[test]
fn journal_that_is_not_bound_to_its_file_is_caught() {
    let harm = run_seeds(Recipe::UnboundJournal, JOURNAL_AT_TIMES);

    assert!(harm.lost > 0, "{harm:?}");
}

#[test]
fn missing_fsync_of_the_file_is_caught() {
    let harm = run_seeds(Recipe::NoFileSync, Limits::default());

    assert!(harm.corrupt > 0, "{harm:?}");
}

#[test]
fn missing_fsync_of_the_directory_is_caught() {
    let harm = run_seeds(Recipe::NoDirectorySync, Limits::default());

    assert!(harm.lost > 0, "{harm:?}");
}

#[test]
fn writing_in_place_is_caught_even_with_fsync() {
    let harm = run_seeds(Recipe::InPlaceSynced, Limits::default());

    assert!(harm.corrupt > 0, "{harm:?}");
}

#[test]
fn writing_in_place_without_fsync_is_caught() {
    let harm = run_seeds(Recipe::InPlace, Limits::default());

    assert!(harm.lost + harm.corrupt > 0, "{harm:?}");
}

#[test]
fn power_loss_during_recovery_loses_neither_the_backup_nor_the_evidence() {
    const DAMAGED: &[u8] = b"{\"format\": \"agents\", \"sch";
    const CRASH_POINTS: u32 = 40;
    let mut crashes = 0;

    for budget in 0..CRASH_POINTS {
        let crashed = Arc::new(Mutex::new(false));
        let outcome = Arc::new(Mutex::new(None));
        let (crashed_in, outcome_in) = (Arc::clone(&crashed), Arc::clone(&outcome));
        simulate(budget.into(), 3, move |boot| {
            let budget = if boot == 1 { budget } else { u32::MAX };
            let disk = Arc::new(SimulatedDisk::new(Recipe::Right, 0, budget));
            let mut store = JsonStore::on(Arc::clone(&disk) as _, Path::new(DIRECTORY), None);
            let loaded = store.load();
            match boot {
                0 => {
                    store.commit(&[put(&agent(1))]).unwrap();
                    store.commit(&[put(&agent(2))]).unwrap();
                    damage_durably(DAMAGED);
                }
                1 => *crashed_in.lock() = disk.is_off(),
                _ => *outcome_in.lock() = Some((loaded.unwrap().agents, evidence())),
            }
        });

        let (agents, evidence) = outcome.lock().take().expect("the last boot ran");
        assert_eq!(agents, [agent(1)], "power loss after {budget} operations");
        assert_eq!(evidence, [DAMAGED], "power loss after {budget} operations");
        crashes += u32::from(*crashed.lock());
    }

    assert!(
        (5..CRASH_POINTS).contains(&crashes),
        "recovery must be crashed at each of its operations, and also finish: {crashes}"
    );
}

/// Which of the necessary steps the file system really makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recipe {
    Right,
    NoFileSync,
    NoDirectorySync,
    InPlaceSynced,
    InPlace,
    NoJournalSync,
    NoJournalDirectorySync,
    /// A journal is taken for that of whatever file is there.
    UnboundJournal,
}

impl Recipe {
    fn is_in_place(self) -> bool {
        match self {
            Self::InPlaceSynced | Self::InPlace => true,
            Self::Right
            | Self::NoFileSync
            | Self::NoDirectorySync
            | Self::NoJournalSync
            | Self::NoJournalDirectorySync
            | Self::UnboundJournal => false,
        }
    }

    fn syncs_file(self, path: &Path) -> bool {
        match self {
            Self::NoFileSync | Self::InPlace => false,
            Self::NoJournalSync => !is_journal(path),
            Self::Right
            | Self::NoDirectorySync
            | Self::InPlaceSynced
            | Self::NoJournalDirectorySync
            | Self::UnboundJournal => true,
        }
    }

    /// `created` is the last file that was.
    fn syncs_directory_of(self, created: &Path) -> bool {
        match self {
            Self::NoDirectorySync | Self::InPlace => false,
            Self::NoJournalDirectorySync => !is_journal(created),
            Self::Right
            | Self::NoFileSync
            | Self::InPlaceSynced
            | Self::NoJournalSync
            | Self::UnboundJournal => true,
        }
    }
}

/// Returns the latest journal that there is, as if it were the one at `path`.
fn rebound(path: &Path) -> Option<Vec<u8>> {
    let journals = simulated::read_dir(DIRECTORY).ok()?;
    let journals = journals.map(|entry| entry.unwrap().path());
    let latest = journals
        .filter(|path| is_journal(path))
        .max_by_key(|path| generation(path))?;
    let journal = simulated::read(latest).ok()?;
    let file = simulated::read(FILE).ok()?;
    rebind(&journal, generation(path)?, &String::from_utf8_lossy(&file))
}

fn generation(journal: &Path) -> Option<u64> {
    let (_, digits) = journal.to_str()?.rsplit_once('-')?;
    digits.parse().ok()
}

fn is_journal(path: &Path) -> bool {
    path.to_string_lossy().contains(".journal-")
}

/// What was found after power losses.
#[derive(Debug, Default)]
struct Harm {
    crashes: u64,
    acknowledged: u64,
    lost: u64,
    corrupt: u64,
}

impl Harm {
    fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.corrupt += other.corrupt;
    }
}

/// Crashes a coordinator's storage at random moments, for each seed several times.
fn run_seeds(recipe: Recipe, limits: Limits) -> Harm {
    let seeds = std::env::var("POWER_LOSS_SEEDS").map_or(DEFAULT_SEEDS, |text| {
        text.parse().expect("POWER_LOSS_SEEDS is a number")
    });
    let seeds = if recipe == Recipe::Right {
        seeds
    } else {
        seeds.div_ceil(SEEDS_PER_BROKEN_SEED)
    };
    let mut total = Harm::default();
    for seed in 0..seeds {
        let found = Arc::new(Mutex::new(Harm::default()));
        let harm = Arc::clone(&found);
        let mut history = History::default();
        simulate(seed, CRASHES_PER_SEED, move |boot| {
            let mut rng = SmallRng::seed_from_u64(seed * CRASHES_PER_SEED + boot);
            let rules = (recipe, limits);
            run_until_power_loss(rules, &mut rng, &mut history, &mut harm.lock());
        });
        let found = std::mem::take(&mut *found.lock());
        if recipe == Recipe::Right && found.lost + found.corrupt > 0 {
            println!("seed {seed} does harm: {found:?}");
        }
        total.add(&found);
    }
    println!("{recipe:?}, {limits:?}, seeds 0..{seeds}: {total:?}");
    total
}

type Agents = BTreeMap<AgentId, StoredAgent>;

/// What the store promised to keep, and what it may have kept beyond that.
#[derive(Debug, Default)]
struct History {
    acknowledged: Agents,
    attempted: Option<Agents>,
}

fn run_until_power_loss(
    (recipe, limits): (Recipe, Limits),
    rng: &mut SmallRng,
    history: &mut History,
    harm: &mut Harm,
) {
    let disk = SimulatedDisk::new(recipe, rng.random(), rng.random_range(1..80));
    let disk = Arc::new(disk);
    let open = || {
        let store = JsonStore::on(Arc::clone(&disk) as _, Path::new(DIRECTORY), None);
        store.with_limits(limits)
    };
    let mut store = open();
    let loaded = store.load();
    harm.crashes += 1;
    if disk.is_off() {
        return;
    }
    judge(loaded, history, harm);
    loop {
        if rng.random_bool(0.05) {
            store.close();
            store = open();
            let loaded = store.load();
            if disk.is_off() {
                return;
            }
            judge(loaded, history, harm);
        }
        let (batch, after) = random_batch(rng, &history.acknowledged);
        history.attempted = Some(after.clone());
        let committed = store.commit(&batch);
        if disk.is_off() && committed.is_err() {
            return;
        }
        committed.expect("the simulated disk works until the power goes");
        harm.acknowledged += 1;
        *history = History {
            acknowledged: after,
            attempted: None,
        };
        if disk.is_off() {
            // It went while something was tidied up after the batch was durable.
            return;
        }
    }
}

/// The whole of what was acknowledged must be there, or the whole of the batch on top of it.
fn judge(
    loaded: Result<ollama_coordinator::storage::Loaded, StoreError>,
    history: &mut History,
    harm: &mut Harm,
) {
    let (agents, recovery) = match loaded {
        Ok(loaded) => (loaded.agents, Some(loaded.recovery)),
        Err(_) => (Vec::new(), None),
    };
    let agents: Agents = agents.into_iter().map(|agent| (agent.id, agent)).collect();
    if !matches!(recovery, Some(Recovery::Clean | Recovery::New)) {
        harm.corrupt += 1;
    } else if agents != history.acknowledged && Some(&agents) != history.attempted.as_ref() {
        harm.lost += 1;
    }
    *history = History {
        acknowledged: agents,
        attempted: None,
    };
}

fn random_batch(rng: &mut SmallRng, agents: &Agents) -> (Vec<Change>, Agents) {
    let mut after = agents.clone();
    let batch = (0..rng.random_range(1..4)).map(|_| {
        let mut agent = agent(rng.random_range(1..9));
        if rng.random_bool(0.2) {
            after.remove(&agent.id);
            return Change::Remove(agent.id);
        }
        agent.epoch = rng.random();
        agent.notes = Some("x".repeat(rng.random_range(0..2_000)));
        after.insert(agent.id, agent.clone());
        put(&agent)
    });
    (batch.collect(), after)
}

/// Runs `boot` on one simulated machine `boots` times; the power goes after each.
fn simulate(seed: u64, boots: u64, mut boot: impl FnMut(u64) + 'static) {
    let mut builder = turmoil::Builder::new();
    builder.rng_seed(seed);
    builder.fs().sync_probability(0.15).block_size(512);
    let mut simulation = builder.build();
    let boot = Arc::new(Mutex::new(move |number| {
        if number == 0 {
            simulated::create_dir_all(DIRECTORY)?;
            simulated::sync_dir("/")?;
        }
        boot(number);
        io::Result::Ok(())
    }));
    let booted = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&booted);
    simulation.host("coordinator", move || {
        let (boot, counter) = (Arc::clone(&boot), Arc::clone(&counter));
        async move {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            (boot.lock())(number.into())?;
            std::future::pending::<()>().await;
            Ok(())
        }
    });
    for _ in 0..boots {
        simulation.step().unwrap();
        simulation.crash("coordinator");
        simulation.bounce("coordinator");
    }
    assert_eq!(u64::from(booted.load(Ordering::Relaxed)), boots);
}

fn damage_durably(contents: &[u8]) {
    let mut file = simulated::OpenOptions::new();
    let mut file = file.write(true).truncate(true).open(FILE).unwrap();
    file.write_all(contents).unwrap();
    file.sync_all().unwrap();
}

fn evidence() -> Vec<Vec<u8>> {
    simulated::read_dir(DIRECTORY)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(".corrupt-"))
        .map(|path| simulated::read(path).unwrap())
        .collect()
}

/// turmoil's file system until the power goes, which is after `budget` operations.
#[derive(Debug)]
struct SimulatedDisk {
    recipe: Recipe,
    power: Arc<Power>,
    /// The last file that was created.
    created: Mutex<PathBuf>,
}

#[derive(Debug)]
struct Power {
    budget: AtomicU32,
    rng: Mutex<SmallRng>,
}

impl SimulatedDisk {
    fn new(recipe: Recipe, seed: u64, budget: u32) -> Self {
        let power = Power {
            budget: AtomicU32::new(budget),
            rng: Mutex::new(SmallRng::seed_from_u64(seed)),
        };
        Self {
            recipe,
            power: Arc::new(power),
            created: Mutex::default(),
        }
    }

    fn is_off(&self) -> bool {
        self.power.budget.load(Ordering::Relaxed) == 0
    }

    /// Returns whether `path` is the temporary file that an in-place recipe does without.
    fn is_skipped(&self, path: &Path) -> bool {
        self.recipe.is_in_place() && path.to_string_lossy().contains("/.agents.json.tmp.")
    }
}

impl Power {
    fn spend(&self) -> io::Result<()> {
        let spent = self
            .budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        match spent {
            Ok(left) if left > 1 => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::other("the power is off")),
        }
    }
}

impl FileSystem for SimulatedDisk {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.power.spend()?;
        path.clone_into(&mut self.created.lock());
        let mut options = simulated::OpenOptions::new();
        options.write(true);
        let file = if self.is_skipped(path) {
            options.create(true).truncate(true).open(FILE)?
        } else {
            options.create_new(true).open(path)?
        };
        Ok(Box::new(SimulatedFile {
            file,
            is_synced: self.recipe.syncs_file(path),
            power: Arc::clone(&self.power),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.power.spend()?;
        match simulated::read(path) {
            Err(_missing) if self.recipe == Recipe::UnboundJournal && is_journal(path) => {
                rebound(path).ok_or(io::ErrorKind::NotFound.into())
            }
            read => read,
        }
    }

    fn names(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        self.power.spend()?;
        simulated::read_dir(directory)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect()
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        simulated::read_link(path)
    }

    fn hard_link(&self, original: &Path, link: &Path) -> io::Result<()> {
        self.power.spend()?;
        if !simulated::exists(original) || self.recipe.is_in_place() {
            return Err(io::ErrorKind::NotFound.into());
        }
        simulated::hard_link(original, link)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.power.spend()?;
        if self.is_skipped(from) {
            return Ok(());
        }
        simulated::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.power.spend()?;
        if self.recipe == Recipe::UnboundJournal && is_journal(path) {
            return Ok(());
        }
        simulated::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.power.spend()?;
        if self.recipe.syncs_directory_of(&self.created.lock()) {
            simulated::sync_dir(directory)?;
        }
        Ok(())
    }
}

struct SimulatedFile {
    file: simulated::File,
    is_synced: bool,
    power: Arc<Power>,
}

impl Write for SimulatedFile {
    /// Takes a piece at a time, so that the power can also go in the middle. Its length is even:
    /// a hole in what reached the disk is never of a single byte, as it is not in sectors.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.power.spend()?;
        let most = self.power.rng.lock().random_range(1..750) * 2;
        self.file.write(&buf[..buf.len().min(most)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewFile for SimulatedFile {
    fn sync(&mut self) -> io::Result<()> {
        self.power.spend()?;
        if self.is_synced {
            self.file.sync_all()?;
        }
        Ok(())
    }
}
