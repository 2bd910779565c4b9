//! The only wiring: lock the state directory, read the identity, start the tasks, run the session.

use std::convert::Infallible;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::sync::{Notify, watch};

use crate::config::{Config, Link};
use crate::identity::{Identity, IdentityError};
use crate::instance::{Guard, Instance};
use crate::session::{SessionLoop, Sources};
use crate::status::AgentStatus;
use crate::tunnel::{Keeper, Ties};
use crate::{platform, runtime, system};

/// For tasks that only wait: they end with their next turn.
const TASKS_GRACE: Duration = Duration::from_secs(1);

/// Runs the agent until `shutdown`.
///
/// # Errors
/// The state directory cannot be used, or the allowed attempts to register are used up.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), AgentError> {
    let (status, _nobody_watches) = watch::channel(AgentStatus::starting(&config));
    run_with_status(config, shutdown, status).await
}

/// Runs the agent until `shutdown` and keeps `status` up to date.
///
/// # Errors
/// The state directory cannot be used, or the allowed attempts to register are used up.
pub async fn run_with_status(
    config: Config,
    shutdown: Shutdown,
    status: watch::Sender<AgentStatus>,
) -> Result<(), AgentError> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        coordinator.url = %config.coordinator,
        runtime.url = %config.runtime,
        link = %config.link.kind(),
        proxy = config.dial.proxy_of(&config.coordinator),
        state_dir = %config.state_dir.display(),
        "Ollama agent started"
    );
    let state_dir = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || open(&state_dir)).await;
    let (lock, identity) = opened.expect("opening the state directory does not panic")?;

    let tasks = Tasks::default();
    let (standing, seen) = watch::channel(None);
    let ties = Ties {
        standing: seen,
        renewal: Arc::new(Notify::new()),
        status: status.clone(),
        shutdown: shutdown.clone(),
    };
    let renewal = Arc::clone(&ties.renewal);
    let tunnel = start_tunnel(&config, ties);
    let (runtime, load) = start_watching(&config, &tasks, status.clone());
    let sources = Sources {
        runtime,
        load,
        renewal,
        standing,
        status,
        shutdown: shutdown.clone(),
    };
    let session = SessionLoop::new(&config, identity, sources);
    let ended = tokio::select! {
        biased;
        () = shutdown.forced() => Ok(()),
        ended = session.run() => ended,
        () = tasks.token().cancelled() => Err(AgentError::TaskEnded),
        () = tunnel.token().cancelled() => Err(AgentError::TaskEnded),
    };
    if let Err(error) = tunnel.stop(config.timing.drain + TASKS_GRACE).await {
        tracing::warn!(%error, "Requests were left behind");
    }
    if let Err(error) = tasks.stop(TASKS_GRACE).await {
        tracing::warn!(%error, "Tasks were left behind");
    }
    drop(lock);
    ended
}

/// Starts the tunnel, if there is to be one. It ends after the session, so it has an owner of its own.
fn start_tunnel(config: &Config, ties: Ties) -> Tasks {
    let tasks = Tasks::default();
    if config.link == Link::Tunnel {
        let keeping = Keeper::new(config, ties).run(tasks.token().clone());
        tasks.spawn("tunnel", OnExit::Stop, async {
            keeping.await;
            Ok::<_, Infallible>(())
        });
    }
    tasks
}

type Watched = (
    watch::Receiver<Option<RuntimeReport>>,
    watch::Receiver<Option<Metrics>>,
);

fn start_watching(config: &Config, tasks: &Tasks, status: watch::Sender<AgentStatus>) -> Watched {
    let (reports, seen) = watch::channel(None);
    let (samples, load) = watch::channel(None);
    let slots = runtime::Slots {
        capacity: config.capacity,
        ollama: config.ollama_slots,
    };
    let runtime = (config.runtime.clone(), slots);
    let watching = runtime::watch_runtime(runtime, config.timing, reports, status);
    spawn(tasks, "runtime probe", OnExit::Stop, watching);
    spawn(
        tasks,
        "load",
        OnExit::Log,
        system::watch_load(config.timing.metrics, samples),
    );
    (seen, load)
}

fn spawn(
    tasks: &Tasks,
    name: &'static str,
    on_exit: OnExit,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let token = tasks.token().clone();
    tasks.spawn(name, on_exit, async move {
        token.run_until_cancelled(work).await;
        Ok::<_, Infallible>(())
    });
}

fn open(state_dir: &Path) -> Result<(Guard, Identity), AgentError> {
    let unusable = |source| AgentError::StateDir {
        path: state_dir.to_owned(),
        source,
    };
    platform::create_private_dir(state_dir).map_err(unusable)?;
    match Instance::acquire(state_dir).map_err(unusable)? {
        Instance::First(guard) => Ok((guard, Identity::open(state_dir)?)),
        Instance::AlreadyRunning { pid } => Err(AgentError::AlreadyRunning {
            pid,
            path: state_dir.to_owned(),
        }),
    }
}

/// Why the agent ended without being asked to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent process uses the state directory.
    #[error(
        "an agent{} already uses {}; stop it first, or give this one its own --state-dir",
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        .path.display()
    )]
    AlreadyRunning {
        /// That process, when it is known.
        pid: Option<u32>,
        /// The state directory.
        path: PathBuf,
    },
    /// The state directory cannot be made or locked.
    #[error("the state directory {} cannot be used", .path.display())]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The identity cannot be read or kept.
    #[error("the agent has no identity to register with")]
    Identity(#[from] IdentityError),
    /// The allowed attempts to register are used up.
    #[error("not registered after {attempts} attempts (--register-max-attempts): {last_error}")]
    AttemptsUsed {
        /// How many there were.
        attempts: u32,
        /// Why the last one failed.
        last_error: String,
    },
    /// A part of the agent ended that must not.
    #[error("a part of the agent ended unexpectedly")]
    TaskEnded,
}

impl AgentError {
    /// Returns the exit status that stands for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::StateDir { .. } | Self::Identity(_) | Self::TaskEnded => 1,
            Self::AttemptsUsed { .. } => 3,
            Self::AlreadyRunning { .. } => 6,
        }
    }
}
