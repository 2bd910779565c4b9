//! The only wiring: lock the state directory, and keep an [`engine`] running with the settings that
//! are wanted. Other settings start another one, while the one before finishes what runs in it.

mod engine;
mod engines;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ollama_coordinator_common::shutdown::Shutdown;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::runtime::Runtime;

use self::engine::spawn;
use self::engines::Engines;
use crate::config::{Config, Given, Panel};
use crate::control::Control;
use crate::identity::IdentityError;
use crate::instance::{Guard, Instance};
use crate::pause::{Pause, PauseError};
use crate::{panel, platform};

/// For tasks that only wait: they end with their next turn.
pub(crate) const TASKS_GRACE: Duration = Duration::from_secs(1);

/// Runs the agent until `shutdown`, without anybody who could steer it.
///
/// # Errors
/// The state directory cannot be used, or the allowed attempts to register are used up.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), AgentError> {
    let opened = tokio::task::spawn_blocking(move || Agent::open(config, shutdown)).await;
    let agent = opened.expect("opening the state directory does not panic")?;
    agent.run().await
}

/// Runs `work` to its end; a name lookup that hangs in the system must not hold it up.
pub fn finish<T>(runtime: Runtime, work: impl Future<Output = T>) -> T {
    let ended = runtime.block_on(work);
    runtime.shutdown_background();
    ended
}

/// An agent that has its state directory for itself.
#[derive(Debug)]
pub struct Agent {
    _lock: Guard,
    control: Control,
    panel: Option<Given>,
    first: Config,
}

impl Agent {
    /// Takes the state directory and reads what is kept there.
    ///
    /// # Errors
    /// The state directory cannot be used, or another agent uses it.
    pub fn open(config: Config, shutdown: Shutdown) -> Result<Self, AgentError> {
        let (lock, pause) = open(&config.state_dir)?;
        Ok(Self {
            _lock: lock,
            control: Control::new(config.clone(), pause, shutdown),
            panel: None,
            first: config,
        })
    }

    /// Has it serve the settings panel, unless that is off; what the panel saves is resolved with
    /// the flags and variables that were given.
    #[must_use]
    pub fn with_panel(mut self, given: Given) -> Self {
        self.panel = Some(given);
        self
    }

    /// Returns what steers it.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Runs until it is asked to end.
    ///
    /// # Errors
    /// The identity cannot be used, or the allowed attempts to register are used up.
    pub async fn run(self) -> Result<(), AgentError> {
        tell(&self.first);
        let aside = Tasks::default();
        let control = self.control.clone();
        spawn(&aside, "pause", OnExit::Log, async move {
            control.end_pauses().await;
        });
        if let (Some(given), Panel::Port(port)) = (self.panel, self.first.panel) {
            panel::start(port, given, &self.control, &aside).await;
        } else {
            panel::PanelFile::remove(&self.first.state_dir);
        }
        let ended = supervise(&self.control).await;
        if let Err(error) = aside.stop(TASKS_GRACE).await {
            tracing::warn!(%error, "Tasks were left behind");
        }
        ended
    }
}

fn tell(config: &Config) {
    let coordinator = config.coordinator.as_ref();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        coordinator.url = coordinator.map(ToString::to_string),
        runtime.url = %config.runtime,
        link = %config.link.kind(),
        proxy = coordinator.and_then(|coordinator| config.dial.proxy_of(coordinator)),
        state_dir = %config.state_dir.display(),
        "Ollama agent started"
    );
    if let Some(ollama_host) = &config.ollama_host {
        tracing::info!(ollama_host, runtime.url = %config.runtime, "OLLAMA_HOST names the runtime");
    }
}

/// Keeps an engine running until the end is asked for; one after another when settings change.
async fn supervise(control: &Control) -> Result<(), AgentError> {
    let shutdown = control.shutdown();
    let mut wanted = control.wanted();
    let mut engines = Engines::default();
    loop {
        let config = wanted.borrow_and_update().clone();
        let engine = engines.start(config, control);
        tokio::select! {
            biased;
            ended = engines.end_of(&engine) => return ended,
            () = shutdown.stopping() => {
                engine.leave();
                return engines.all_end(&engine).await;
            }
            _ = wanted.changed() => tracing::info!("Settings changed, going on with them"),
        }
        let coordinator = wanted.borrow().coordinator.clone();
        engine.make_way_for(coordinator).await;
    }
}

fn open(state_dir: &Path) -> Result<(Guard, Option<Pause>), AgentError> {
    let unusable = |source| AgentError::StateDir {
        path: state_dir.to_owned(),
        source,
    };
    platform::create_private_dir(state_dir).map_err(unusable)?;
    match Instance::acquire(state_dir).map_err(unusable)? {
        Instance::First(guard) => Ok((guard, Pause::open(state_dir, SystemTime::now())?)),
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
    /// Whether the machine is paused cannot be read.
    #[error("it is not known whether this machine is paused")]
    Pause(#[from] PauseError),
    /// The allowed attempts to register are used up.
    #[error("not registered after {attempts} attempts (--register-max-attempts): {last_error}")]
    AttemptsUsed {
        /// How many there were.
        attempts: u32,
        /// Why the last one failed.
        last_error: String,
    },
    /// The system gives no thread to run in.
    #[error("the system gives the agent no thread")]
    Thread(#[source] std::io::Error),
    /// A part of the agent ended that must not.
    #[error("a part of the agent ended unexpectedly")]
    TaskEnded,
}

impl AgentError {
    /// Returns the exit status that stands for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::StateDir { .. }
            | Self::Identity(_)
            | Self::Pause(_)
            | Self::Thread(_)
            | Self::TaskEnded => 1,
            Self::AttemptsUsed { .. } => 3,
            Self::AlreadyRunning { .. } => 6,
        }
    }
}
