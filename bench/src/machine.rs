//! The machine as a whole: how much of it others use, which processors are whose, and how many
//! files may be open.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::time::{Instant, sleep};

use crate::process::{ticks, tree_cpu};

/// Below this many processors' worth of foreign work the machine counts as quiet.
const QUIET: f64 = 0.1;
/// Processor times have steps of 10 ms.
const SHORTEST_WATCH: Duration = Duration::from_millis(100);

/// Allows as many open files as the system lets this process have.
pub(crate) fn raise_open_files() -> std::io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, wanted)?;
    Ok(())
}

/// Two processors: one for the program under test, one for everything else. A machine that has
/// only one shares it.
#[derive(Debug)]
pub(crate) struct Halves {
    all: CpuSet,
    tested: CpuSet,
    load: CpuSet,
}

impl Halves {
    /// Takes the first two processors that this thread may use.
    pub(crate) fn find() -> std::io::Result<Self> {
        let all = sched_getaffinity(None)?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|&cpu| all.is_set(cpu));
        let only = |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu);
            set
        };
        Ok(match (usable.next(), usable.next()) {
            (Some(first), Some(second)) => Self {
                all,
                tested: only(first),
                load: only(second),
            },
            _ => Self {
                all,
                tested: all,
                load: all,
            },
        })
    }

    /// Moves this thread, and what it starts from now on, to where the load is.
    pub(crate) fn to_load(&self) -> std::io::Result<()> {
        Ok(sched_setaffinity(None, &self.load)?)
    }

    /// Lets this thread go where it could at first.
    pub(crate) fn to_all(&self) -> std::io::Result<()> {
        Ok(sched_setaffinity(None, &self.all)?)
    }

    /// Moves this thread, and what it starts from now on, to where the program under test is.
    pub(crate) fn to_tested(&self) -> std::io::Result<()> {
        Ok(sched_setaffinity(None, &self.tested)?)
    }
}

/// Watches what others do with the processors.
#[derive(Debug)]
pub(crate) struct Foreign {
    since: Instant,
    busy: Duration,
    own: Duration,
}

impl Foreign {
    /// Starts watching.
    pub(crate) fn watch() -> Self {
        Self {
            since: Instant::now(),
            busy: busy(),
            own: tree_cpu(),
        }
    }

    /// Returns how many processors' worth of work others did since the start of the watch; `None`
    /// when that was too short a time ago to tell.
    pub(crate) fn processors(&self) -> Option<f64> {
        let watched = self.since.elapsed();
        let busy = busy().saturating_sub(self.busy);
        let own = tree_cpu().saturating_sub(self.own);
        (watched >= SHORTEST_WATCH)
            .then(|| busy.saturating_sub(own).as_secs_f64() / watched.as_secs_f64())
    }
}

/// Waits for a quiet second, at most `patience`, and returns the foreign load of the last one.
pub(crate) async fn wait_for_quiet(patience: Duration) -> f64 {
    let deadline = Instant::now() + patience;
    loop {
        let foreign = Foreign::watch();
        sleep(Duration::from_secs(1)).await;
        let load = foreign.processors().unwrap_or_default();
        if load < QUIET || Instant::now() >= deadline {
            return load;
        }
    }
}

/// Returns the time that all processors together have worked.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    let worked = [0, 1, 2, 5, 6, 7].map(|at| fields.get(at).copied().unwrap_or(0));
    ticks(worked.iter().sum())
}
