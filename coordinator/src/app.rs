//! The only wiring: open storage, restore the registry, spawn the tasks, serve, and stop in order.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use chrono::Utc;
use ollama_coordinator_common::service::notify;
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use socket2::{Domain, Protocol, Socket, Type};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::error::ApiError;
use crate::balancer::Balancer;
use crate::banner::Banner;
use crate::config::{Config, InvalidConfig, storage};
use crate::history::History;
use crate::proxy::Proxy;
use crate::proxy::story::Storybook;
use crate::registry::table::Unsaved;
use crate::registry::{Registry, reaper, saver};
use crate::server::{Frontend, ServerLimits};
use crate::state::{AppState, Process};
use crate::storage::json::OpenError;
use crate::storage::writer::{Writer, WriterThread};
use crate::storage::{Store as _, StoreError};
use crate::{api, balancer, reach, server};

mod local;

use local::LocalAgents;

/// How long requests may take to finish once a stop was asked for.
const GRACE_PERIOD: Duration = Duration::from_secs(30);
/// How long tasks may take to end after that.
const TASK_GRACE_PERIOD: Duration = Duration::from_secs(5);
/// How long all of it may take: own agents, requests, tasks.
pub const STOPS_WITHIN: Duration = local::GOODBYE
    .saturating_add(GRACE_PERIOD)
    .saturating_add(TASK_GRACE_PERIOD);
/// More open files than this are not asked for.
const MAX_DESCRIPTORS: u64 = 1 << 20;
/// Connections that wait in the system's queue.
const BACKLOG: i32 = 4_096;

/// Why the coordinator could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {addr}{}",
        if source.kind() == io::ErrorKind::AddrInUse {
            ": the port is in use, perhaps by another coordinator; choose one with --port"
        } else { "" }
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The data directory cannot be opened.
    #[error("cannot open the data directory")]
    Open(#[source] OpenError),
    /// The registry cannot be loaded.
    #[error("cannot load the registry")]
    Load(#[source] StoreError),
    /// The temporary data directory cannot be made.
    #[error("cannot make a temporary data directory")]
    Temporary(#[source] io::Error),
    /// A part without which the coordinator cannot work has failed; the log says which.
    #[error("a part of the coordinator failed and stopped it")]
    TaskFailed,
}

impl RunError {
    /// Returns the exit code that the help text promises.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => 6,
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrNotAvailable => 2,
            Self::Open(OpenError::Locked { .. }) => 6,
            Self::Load(StoreError::NewerSchema { .. }) => 78,
            Self::Listen { .. }
            | Self::Open(_)
            | Self::Load(_)
            | Self::Temporary(_)
            | Self::TaskFailed => 1,
        }
    }
}

/// Listens and serves until the process is asked to stop.
pub async fn run(config: Config, shutdown: Shutdown) -> Result<(), RunError> {
    config.validate()?;
    let listener = listen(&config)?;
    serve(listener, config, shutdown).await
}

/// Serves on `listener` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let local_addr = listener.local_addr().map_err(|source| {
        let addr = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), config.listen.port);
        RunError::Listen { addr, source }
    })?;
    let temporary = temporary_data_dir(&config)?;
    let data_dir = match (&temporary, config.data_dir()?) {
        (_, Some(dir)) => dir,
        (Some(temporary), None) => temporary.path().to_owned(),
        (None, None) => unreachable!("without --dev there is a data directory"),
    };
    let (state, writer_thread) = open(&config, &data_dir, (local_addr, shutdown.clone()))?;

    let tasks = start_tasks(&state, &shutdown);
    let frontend = Frontend {
        api: router(state.clone()),
        proxy: state.proxy().clone(),
    };
    let server = Server::start(listener, frontend, config.limits);
    let banner = Banner::new(&config);
    banner.started(&config, local_addr, &data_dir, &state.process().recovery);
    notify::ready();
    let local = tokio::select! {
        local = local::start(&config, local_addr, &data_dir) => local,
        () = shutdown.stopping() => LocalAgents::default(),
    };

    let stopped = tokio::select! {
        () = shutdown.stopping() => Ok(()),
        () = tasks.token().cancelled() => Err(RunError::TaskFailed),
        () = server.connections.token().cancelled() => Err(RunError::TaskFailed),
    };
    notify::stopping();
    let stop_in_order = async {
        banner.stopping(state.proxy().balancer().totals().in_flight);
        local.stop().await;
        server.drain().await;
        finish(state.registry(), &tasks, writer_thread).await;
    };
    tokio::select! {
        () = stop_in_order => {}
        () = shutdown.forced() => tracing::warn!("Forced to stop, what still ran was cut off"),
    }
    banner.stopped();
    stopped
}

fn start_tasks(state: &AppState, shutdown: &Shutdown) -> Tasks {
    let (registry, balancer) = (state.registry(), state.proxy().balancer());
    let tasks = Tasks::default();
    let token = || tasks.token().clone();
    let signals = until(token(), shutdown.clone().watch_signals());
    tasks.spawn("signals", OnExit::Log, signals);
    tasks.spawn(
        "reaper",
        OnExit::Stop,
        reaper::run(registry.clone(), token()),
    );
    tasks.spawn("reach", OnExit::Stop, reach::run(registry.clone(), token()));
    tasks.spawn(
        "balancer",
        OnExit::Stop,
        balancer::run(balancer.clone(), token()),
    );
    tasks.spawn("saver", OnExit::Stop, saver::run(registry.clone(), token()));
    let storybook = state.proxy().storybook().clone();
    tasks.spawn("traces", OnExit::Log, storybook.export(token()));
    tasks.spawn(
        "history",
        OnExit::Log,
        state
            .history()
            .clone()
            .run(registry.clone(), state.proxy().clone(), token()),
    );
    tasks.spawn("feed", OnExit::Stop, state.feed().clone().run(token()));
    let upstream = state.proxy().upstream().clone();
    tasks.spawn(
        "idle connections",
        OnExit::Log,
        until(token(), upstream.close_idle_for_ever()),
    );
    tasks
}

/// The accept loop as a task.
struct Server {
    connections: Tasks,
    stop: CancellationToken,
    force: CancellationToken,
}

impl Server {
    fn start(listener: TcpListener, frontend: Frontend, limits: ServerLimits) -> Self {
        let (stop, force) = (CancellationToken::new(), CancellationToken::new());
        let connections = Tasks::default();
        let served = server::serve(listener, frontend, limits, stop.clone(), force.clone());
        connections.spawn("server", OnExit::Stop, served);
        Self {
            connections,
            stop,
            force,
        }
    }

    /// Stops accepting, lets requests finish, and cuts off those that take too long.
    async fn drain(self) {
        self.stop.cancel();
        if self.connections.join(GRACE_PERIOD).await.is_err() {
            tracing::warn!("Requests still ran when the grace period was over and were cut off");
        }
        self.force.cancel();
    }
}

fn temporary_data_dir(config: &Config) -> Result<Option<TempDir>, RunError> {
    if config.data_dir()?.is_some() {
        return Ok(None);
    }
    let prefix = "ollama-coordinator-dev-";
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .map(Some)
        .map_err(RunError::Temporary)
}

fn open(
    config: &Config,
    data_dir: &std::path::Path,
    (local, shutdown): (SocketAddr, Shutdown),
) -> Result<(AppState, WriterThread), RunError> {
    let import_from = if config.dev {
        None
    } else {
        storage::import_path()
    };
    let mut store =
        crate::storage::open(data_dir, import_from.as_deref()).map_err(RunError::Open)?;
    let loaded = store.load().map_err(RunError::Load)?;
    if loaded.recovery.is_suspicious() {
        tracing::error!(recovery = %loaded.recovery, "Registry was damaged and has been recovered");
    }
    let (writer, writer_thread) = Writer::start(Box::new(store));
    let policy = config.lease.policy()?;
    let registry = Registry::new(policy, writer.clone(), loaded.agents, loaded.saved_at);
    let process = Process {
        writer,
        recovery: Arc::new(loaded.recovery),
        shutdown,
        started_at: Utc::now(),
        local,
    };
    let balancer = Balancer::new(registry.clone(), config.balancing.settings());
    let settings = config.telemetry.settings()?;
    let storybook = Storybook::new(settings, registry.clone(), balancer.clone());
    let proxy = Proxy::new(
        registry.clone(),
        balancer,
        (&config.proxy).into(),
        storybook,
    );
    let history = History::new(config.telemetry.history_bytes());
    let state = AppState::new(registry, proxy, history, process);
    Ok((state, writer_thread))
}

fn router(state: AppState) -> Router {
    api::router()
        .fallback(|| async { ApiError::NotFound.into_response() })
        .with_state(state)
}

async fn finish(registry: &Registry, tasks: &Tasks, writer_thread: WriterThread) {
    if let Err(error) = registry.save(Unsaved::HeardOf).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "Last save failed");
    }
    if let Err(remaining) = tasks.stop(TASK_GRACE_PERIOD).await {
        tracing::error!(%remaining, "Tasks did not stop in time");
    }
    let writer = registry.writer();
    writer.stop();
    let joined = tokio::task::spawn_blocking(move || writer_thread.join()).await;
    if joined.is_err() {
        tracing::error!("Storage writer could not be joined");
    }
}

async fn until(
    token: CancellationToken,
    future: impl Future<Output = ()> + Send,
) -> Result<(), Infallible> {
    tokio::select! {
        () = token.cancelled() => {}
        () = future => {}
    }
    Ok(())
}

/// Binds before anything else is done, so that a port in use changes nothing.
fn listen(config: &Config) -> Result<TcpListener, RunError> {
    raise_descriptor_limit();
    let port = config.listen.port;
    let bind = |addr| bind(addr).map_err(|source| RunError::Listen { addr, source });
    match config.listen.host {
        Some(host) => bind(SocketAddr::new(host, port)),
        None if config.dev => bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)),
        None => {
            let every = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
            match bind(every) {
                Err(RunError::Listen { source, .. })
                    if source.kind() != io::ErrorKind::AddrInUse =>
                {
                    bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port))
                }
                other => other,
            }
        }
    }
}

/// Each connection needs a descriptor, and systems start with few.
fn raise_descriptor_limit() {
    if let Err(error) = rlimit::increase_nofile_limit(MAX_DESCRIPTORS) {
        tracing::warn!(%error, "The limit of open files stays low");
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
