//! The words of the session's state machine.

use std::time::Duration;

use ollama_coordinator_common::protocol::register::LeaseTerms;
use tokio::time::Instant;

const SMALLEST_INTERVAL: Duration = Duration::from_millis(10);
const LARGEST_INTERVAL: Duration = Duration::from_mins(10);

/// How this agent stands with the coordinator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Session {
    /// Not registered, and waiting before the next attempt.
    Unregistered(Joining),
    /// A registration is on its way.
    Registering(Joining),
    /// The coordinator granted a lease, which may have run out since.
    Registered(Registered),
    /// Saying goodbye.
    Leaving,
    /// Nothing more will be done.
    Stopped,
}

/// What counts while registering.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Joining {
    /// Failed attempts in a row.
    pub attempts: u32,
    /// The delay before the attempt that is due next.
    pub previous_delay: Option<Duration>,
    /// When the next attempt is due.
    pub next_at: Instant,
    /// Whether there is something to say goodbye to.
    pub lease_held: LeaseHeld,
}

impl Joining {
    /// Returns the state before the first attempt.
    pub fn start(now: Instant, lease_held: LeaseHeld) -> Self {
        Self {
            attempts: 0,
            previous_delay: None,
            next_at: now,
            lease_held,
        }
    }
}

/// Whether the coordinator may hold a lease of this agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseHeld {
    No,
    Maybe,
}

/// What counts while registered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Registered {
    /// The lease as last granted.
    pub lease: Lease,
    /// When it was last granted.
    pub renewed_at: Instant,
    /// Failed heartbeats in a row.
    pub failures: u32,
    /// The delay before the heartbeat that is due next, once the lease has run out.
    pub previous_delay: Option<Duration>,
    /// When the next heartbeat is due.
    pub next_at: Instant,
}

/// The coordinator's terms, made safe to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub interval: Duration,
    pub ttl: Duration,
}

impl Lease {
    /// Reads `terms`; `longest` caps the interval from above. At least two heartbeats fit into
    /// the TTL.
    pub fn new(terms: LeaseTerms, longest: Option<Duration>) -> Self {
        let ttl = Duration::from_millis(terms.ttl_ms).max(2 * SMALLEST_INTERVAL);
        let interval = Duration::from_millis(terms.heartbeat_interval_ms)
            .min(longest.unwrap_or(LARGEST_INTERVAL))
            .min(ttl / 2)
            .clamp(SMALLEST_INTERVAL, LARGEST_INTERVAL);
        Self { interval, ttl }
    }

    /// Returns how long the answer to a heartbeat may take.
    pub fn heartbeat_timeout(self) -> Duration {
        (self.interval / 3).clamp(Duration::from_secs(1), Duration::from_secs(5))
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The time that was waited for has come.
    Due,
    /// The registration was accepted.
    Granted(LeaseTerms),
    /// The heartbeat was accepted.
    Renewed {
        /// The terms from now on.
        terms: LeaseTerms,
        /// Whether this is the coordinator that answered before.
        coordinator: Coordinator,
    },
    /// The registration or heartbeat failed.
    Failed(Failure),
    /// This machine is reached at another address than the coordinator was told.
    AddressChanged,
    /// There is something that the coordinator should hear at once: of the runtime, of the tunnel, or
    /// of a pause.
    News,
    /// The machine slept.
    Woke,
    /// The new identity is in place.
    IdentityReplaced,
    /// The operator wants the agent to end.
    StopRequested,
    /// Goodbye was said, or there was no time for it.
    Left,
}

/// Which run of the coordinator answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coordinator {
    /// The one that answered before.
    Same,
    /// A new one, which has not heard the whole report.
    Restarted,
}

/// How a message failed, as far as it matters for what comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No usable answer, or not from a coordinator.
    Unreachable,
    /// The coordinator cannot do it now.
    Busy {
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The coordinator does not know the id.
    UnknownAgent,
    /// Another process uses the identity.
    DuplicateIdentity,
    /// Refused for a reason that another try does not cure.
    Refused,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send a registration.
    Register(Connection),
    /// Send a heartbeat.
    Heartbeat {
        connection: Connection,
        timeout: Duration,
    },
    /// Do nothing until then.
    WaitUntil(Instant),
    /// Make a new identity.
    ReplaceIdentity,
    /// Say goodbye.
    Deregister,
    /// End.
    Exit(Ending),
}

/// Over which connection a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// The one that is there.
    Kept,
    /// A new one: the one that is there may lead nowhere.
    Fresh,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As the operator asked.
    Stopped,
    /// The allowed number of attempts to register is used up.
    AttemptsUsed(u32),
}
