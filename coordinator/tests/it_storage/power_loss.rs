//! Power loss between any two file operations, on turmoil's simulated file system, against the
//! real store. The right recipe loses nothing; recipes broken on purpose show that it would be
//! seen if it did. `POWER_LOSS_SEEDS` sets how many runs to make.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ollama_coordinator::storage::agent::StoredAgent;
use ollama_coordinator::storage::conformance::agent;
use ollama_coordinator::storage::json::JsonStore;
use ollama_coordinator::storage::recovery::Recovery;
use ollama_coordinator::storage::{Change, Store as _, StoreError};
use ollama_coordinator_common::atomic_file::file_system::{FileSystem, NewFile};
use ollama_coordinator_common::id::AgentId;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use turmoil::fs::shim::std::fs as simulated;

use crate::support::put;

const DEFAULT_SEEDS: u64 = 150;
/// A broken recipe shows within far fewer runs than the right one deserves.
const SEEDS_PER_BROKEN_SEED: u64 = 5;
const CRASHES_PER_SEED: u64 = 10;
const DIRECTORY: &str = "/data";
const FILE: &str = "/data/agents.json";

#[test]
fn power_loss_at_any_moment_loses_and_corrupts_nothing() {
    let harm = run_seeds(Recipe::Right);

    assert_eq!((harm.lost, harm.corrupt), (0, 0), "{harm:?}");
    assert!(
        harm.acknowledged > harm.crashes,
        "too few commits to mean anything: {harm:?}"
    );
}

#[test]
fn missing_fsync_of_the_file_is_caught() {
    let harm = run_seeds(Recipe::NoFileSync);

    assert!(harm.corrupt > 0, "{harm:?}");
}

#[test]
fn missing_fsync_of_the_directory_is_caught() {
    let harm = run_seeds(Recipe::NoDirectorySync);

    assert!(harm.lost > 0, "{harm:?}");
}

#[test]
fn writing_in_place_is_caught_even_with_fsync() {
    let harm = run_seeds(Recipe::InPlaceSynced);

    assert!(harm.corrupt > 0, "{harm:?}");
}

#[test]
fn writing_in_place_without_fsync_is_caught() {
    let harm = run_seeds(Recipe::InPlace);

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
}

impl Recipe {
    fn is_in_place(self) -> bool {
        match self {
            Self::InPlaceSynced | Self::InPlace => true,
            Self::Right | Self::NoFileSync | Self::NoDirectorySync => false,
        }
    }

    fn syncs_files(self) -> bool {
        match self {
            Self::Right | Self::NoDirectorySync | Self::InPlaceSynced => true,
            Self::NoFileSync | Self::InPlace => false,
        }
    }

    fn syncs_directories(self) -> bool {
        match self {
            Self::Right | Self::NoFileSync | Self::InPlaceSynced => true,
            Self::NoDirectorySync | Self::InPlace => false,
        }
    }
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
fn run_seeds(recipe: Recipe) -> Harm {
    let seeds = std::env::var("POWER_LOSS_SEEDS").map_or(DEFAULT_SEEDS, |text| {
        text.parse().expect("POWER_LOSS_SEEDS is a number")
    });
    let seeds = match recipe {
        Recipe::Right => seeds,
        Recipe::NoFileSync | Recipe::NoDirectorySync | Recipe::InPlaceSynced | Recipe::InPlace => {
            seeds.div_ceil(SEEDS_PER_BROKEN_SEED)
        }
    };
    let mut total = Harm::default();
    for seed in 0..seeds {
        let found = Arc::new(Mutex::new(Harm::default()));
        let harm = Arc::clone(&found);
        let mut history = History::default();
        simulate(seed, CRASHES_PER_SEED, move |boot| {
            let mut rng = SmallRng::seed_from_u64(seed * CRASHES_PER_SEED + boot);
            run_until_power_loss(recipe, &mut rng, &mut history, &mut harm.lock());
        });
        let found = std::mem::take(&mut *found.lock());
        if recipe == Recipe::Right && found.lost + found.corrupt > 0 {
            println!("seed {seed} does harm: {found:?}");
        }
        total.add(&found);
    }
    println!("{recipe:?}, seeds 0..{seeds}: {total:?}");
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
    recipe: Recipe,
    rng: &mut SmallRng,
    history: &mut History,
    harm: &mut Harm,
) {
    let disk = SimulatedDisk::new(recipe, rng.random(), rng.random_range(1..80));
    let disk = Arc::new(disk);
    let mut store = JsonStore::on(Arc::clone(&disk) as _, Path::new(DIRECTORY), None);
    let loaded = store.load();
    harm.crashes += 1;
    if disk.is_off() {
        return;
    }
    judge(loaded, history, harm);
    loop {
        let (batch, after) = random_batch(rng, &history.acknowledged);
        history.attempted = Some(after.clone());
        let committed = store.commit(&batch);
        if disk.is_off() {
            assert!(committed.is_err(), "nothing is acknowledged without power");
            return;
        }
        committed.expect("the simulated disk works until the power goes");
        harm.acknowledged += 1;
        *history = History {
            acknowledged: after,
            attempted: None,
        };
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
        let mut options = simulated::OpenOptions::new();
        options.write(true);
        let file = if self.is_skipped(path) {
            options.create(true).truncate(true).open(FILE)?
        } else {
            options.create_new(true).open(path)?
        };
        Ok(Box::new(SimulatedFile {
            file,
            is_synced: self.recipe.syncs_files(),
            power: Arc::clone(&self.power),
        }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.power.spend()?;
        simulated::read(path)
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
        simulated::remove_file(path)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        self.power.spend()?;
        if self.recipe.syncs_directories() {
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
    /// Takes a piece at a time, so that the power can also go in the middle.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.power.spend()?;
        let most = self.power.rng.lock().random_range(1..1_500);
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
