//! What happened in a run under faults, and the promises that it must have kept.
//!
//! Pure: a recorded history goes in, what it violates comes out. Who records says what he did and
//! what he was told, never what he thinks of it.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::view::{AgentStatus, AgentView};
use parking_lot::Mutex;
use tokio::time::Instant;

/// A moment, counted from the beginning of the run.
pub type Moment = Duration;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Fact {
    /// A registration was acknowledged.
    Registered {
        /// Which machine's.
        machine: String,
        /// The id it has.
        agent: AgentId,
        /// The epoch it was granted.
        epoch: u64,
        /// When it was told.
        at: Moment,
    },
    /// A lease was granted or renewed.
    Renewed {
        /// Which machine's.
        machine: String,
        /// When it was asked for.
        sent: Moment,
        /// When it was told.
        answered: Moment,
        /// How long it runs.
        ttl: Duration,
    },
    /// From here on the machine's agent runs and nothing is between it and the coordinator.
    Works {
        /// Which machine's.
        machine: String,
        /// Since when.
        at: Moment,
    },
    /// From here on something may be wrong with the machine, and it may be shown in any way.
    Disturbed {
        /// Which machine.
        machine: String,
        /// Since when.
        at: Moment,
    },
    /// From here on nobody hears of the machine.
    Silent {
        /// Which machine.
        machine: String,
        /// Since when.
        at: Moment,
    },
    /// The coordinator was not there, or stood still.
    Away {
        /// Since when.
        from: Moment,
        /// Until it answered again.
        until: Moment,
    },
    /// The coordinator showed all agents.
    Listed {
        /// When it was asked.
        asked: Moment,
        /// When it had answered.
        at: Moment,
        /// What it showed.
        agents: Vec<Shown>,
    },
    /// A client's request ended.
    Asked {
        /// When it began.
        began: Moment,
        /// When it ended.
        ended: Moment,
        /// In what.
        end: End,
    },
    /// All clients have left, and this is what the coordinator still counts.
    Counted {
        /// Requests being served.
        in_flight: u64,
        /// Requests that wait.
        queued: u64,
    },
}

/// One agent in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The machine's name.
    pub machine: String,
    /// Its id.
    pub agent: AgentId,
    /// Its epoch.
    pub epoch: u64,
    /// Whether it is online.
    pub is_online: bool,
    /// Whether it gets requests.
    pub is_routable: bool,
}

impl From<&AgentView> for Shown {
    fn from(view: &AgentView) -> Self {
        Self {
            machine: view.machine_name.clone(),
            agent: view.id,
            epoch: view.epoch,
            is_online: view.status == AgentStatus::Online,
            is_routable: view.routable,
        }
    }
}

/// How a client's request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With the whole answer.
    Whole,
    /// A stream that had begun, with an error that says so.
    Told,
    /// The client left.
    Left,
    /// No answer, or an error, before the first byte.
    Failed,
    /// A stream that had begun, by a broken connection.
    Broken,
    /// A stream that had begun, as if it were whole.
    Cut,
    /// Not at all, as long as anybody waited.
    Hung,
}

/// How long the coordinator may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Until a machine that works, or works again, is online and gets requests.
    pub recovery: Duration,
    /// Until a machine of which nothing is heard is offline.
    pub notice: Duration,
    /// After the coordinator was away, nobody has to be offline for this long.
    pub grace: Duration,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// An acknowledged agent is not listed, under another id, or with an older epoch.
    Lost {
        /// Which machine's.
        machine: String,
        /// In the list of this moment.
        at: Moment,
    },
    /// One list has a machine or an id twice.
    Twice {
        /// Which machine.
        machine: String,
        /// In the list of this moment.
        at: Moment,
    },
    /// A machine is shown offline though its lease runs, or though it works.
    WronglyOffline {
        /// Which machine.
        machine: String,
        /// In the list of this moment.
        at: Moment,
    },
    /// A machine of which nothing is heard is shown online for too long.
    WronglyOnline {
        /// Which machine.
        machine: String,
        /// In the list of this moment.
        at: Moment,
    },
    /// A machine that works gets no requests for too long.
    LeftOut {
        /// Which machine.
        machine: String,
        /// In the list of this moment.
        at: Moment,
    },
    /// A request ended as it must not.
    BadEnd {
        /// In what.
        end: End,
        /// When it began.
        began: Moment,
    },
    /// Something is still counted.
    NotIdle {
        /// Requests being served.
        in_flight: u64,
        /// Requests that wait.
        queued: u64,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { machine, at } => write!(f, "{at:.1?}: {machine} is lost"),
            Self::Twice { machine, at } => write!(f, "{at:.1?}: {machine} is listed twice"),
            Self::WronglyOffline { machine, at } => {
                write!(f, "{at:.1?}: {machine} is wrongly offline")
            }
            Self::WronglyOnline { machine, at } => {
                write!(f, "{at:.1?}: {machine} is wrongly online")
            }
            Self::LeftOut { machine, at } => write!(f, "{at:.1?}: {machine} gets no requests"),
            Self::BadEnd { end, began } => write!(f, "a request of {began:.1?} ended: {end:?}"),
            Self::NotIdle { in_flight, queued } => {
                write!(f, "{in_flight} in flight, {queued} queued at the end")
            }
        }
    }
}

/// Returns what a history violates, in the order of its facts.
pub fn violations(history: &[Fact], bounds: &Bounds) -> Vec<Violation> {
    rules::violations(history, bounds)
}

/// Writes a history down, from any number of places at once.
#[derive(Debug, Clone)]
pub struct Recorder {
    begun: Instant,
    facts: Arc<Mutex<Vec<Fact>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            facts: Arc::default(),
        }
    }
}

impl Recorder {
    /// Returns the present moment.
    pub fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    /// Adds a fact.
    pub fn record(&self, fact: Fact) {
        self.facts.lock().push(fact);
    }

    /// Says that a machine works from now on.
    pub fn works(&self, machine: &str) {
        let (machine, at) = (machine.to_owned(), self.now());
        self.record(Fact::Works { machine, at });
    }

    /// Says that something may be wrong with a machine from now on.
    pub fn disturbed(&self, machine: &str) {
        let (machine, at) = (machine.to_owned(), self.now());
        self.record(Fact::Disturbed { machine, at });
    }

    /// Says that nobody hears of a machine from now on.
    pub fn silent(&self, machine: &str) {
        let (machine, at) = (machine.to_owned(), self.now());
        self.record(Fact::Silent { machine, at });
    }

    /// Returns what was recorded so far.
    pub fn history(&self) -> Vec<Fact> {
        self.facts.lock().clone()
    }

    /// Returns how many requests ended in each of these ways.
    pub fn ends<const N: usize>(&self, ends: [End; N]) -> [usize; N] {
        let facts = self.facts.lock();
        let count = |wanted: End| {
            let is_it = |fact: &&Fact| matches!(fact, Fact::Asked { end, .. } if *end == wanted);
            facts.iter().filter(is_it).count()
        };
        ends.map(count)
    }

    /// Returns the machines that were ever shown offline.
    pub fn shown_offline(&self) -> BTreeSet<String> {
        let facts = self.facts.lock();
        let mut machines = BTreeSet::new();
        for fact in facts.iter() {
            if let Fact::Listed { agents, .. } = fact {
                let offline = agents.iter().filter(|shown| !shown.is_online);
                machines.extend(offline.map(|shown| shown.machine.clone()));
            }
        }
        machines
    }
}
