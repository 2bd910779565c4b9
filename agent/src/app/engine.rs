//! One set of settings at work: probe, session and tunnel, from their start to their end.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{AgentError, TASKS_GRACE};
use crate::config::{Config, Link};
use crate::control::Control;
use crate::identity::Identity;
use crate::session::{SessionLoop, Sources};
use crate::status::writer::StatusWriter;
use crate::tunnel::{Keeper, Ties};
use crate::{runtime, system};

/// How an engine is asked to end, and how far it has come.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaving {
    /// It is to take nothing more.
    pub(super) asked: CancellationToken,
    /// Its coordinator expects nothing more of it.
    pub(super) said_goodbye: CancellationToken,
}

/// Serves with one set of settings until it is asked to leave, or for as long as it can; then lets
/// the requests end that run.
pub(super) async fn run_engine(
    config: Config,
    control: Control,
    status: StatusWriter,
    leaving: Leaving,
) -> Result<(), AgentError> {
    let said_goodbye = leaving.said_goodbye.drop_guard();
    let leave = leaving.asked;
    let Some(coordinator) = &config.coordinator else {
        let tasks = Tasks::default();
        let _unheard = start_watching(&config, &tasks, &status);
        leave.cancelled().await;
        stop(&tasks).await;
        return Ok(());
    };
    let state_dir = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Identity::open(&state_dir)).await;
    let identity = opened.expect("reading the identity does not panic")?;
    let tasks = Tasks::default();
    let (runtime, load) = start_watching(&config, &tasks, &status);
    let sources = Sources {
        runtime,
        load,
        pauses: control.pauses(),
        renewal: Arc::new(Notify::new()),
        standing: watch::Sender::new(None),
        status,
        leave,
    };
    let retire = CancellationToken::new();
    let tunnel = keep_tunnel(&config, coordinator, (&sources, &control), retire.clone());
    let mut tunnel = std::pin::pin!(tunnel);
    let session = SessionLoop::new(&config, coordinator, identity, sources);
    let ended = tokio::select! {
        biased;
        () = control.shutdown().forced() => Ok(()),
        ended = session.run() => ended,
        () = tasks.token().cancelled() => Err(AgentError::TaskEnded),
        () = tunnel.as_mut() => Err(AgentError::TaskEnded),
    };
    drop(said_goodbye);
    stop(&tasks).await;
    retire.cancel();
    tunnel.await;
    ended
}

/// Keeps the tunnel, if there is to be one, until it is to `retire`; then lets what runs in it end.
fn keep_tunnel(
    config: &Config,
    coordinator: &BaseUrl,
    (sources, control): (&Sources, &Control),
    retire: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let ties = Ties {
        standing: sources.standing.subscribe(),
        renewal: Arc::clone(&sources.renewal),
        status: sources.status.clone(),
        shutdown: control.shutdown().clone(),
    };
    let keeper = (config.link == Link::Tunnel).then(|| Keeper::new(config, coordinator, ties));
    async move {
        match keeper {
            Some(keeper) => keeper.run(retire).await,
            None => retire.cancelled().await,
        }
    }
    .instrument(tracing::info_span!("task", name = "tunnel"))
}

type Watched = (
    watch::Receiver<Option<RuntimeReport>>,
    watch::Receiver<Option<Metrics>>,
);

fn start_watching(config: &Config, tasks: &Tasks, status: &StatusWriter) -> Watched {
    let (reports, seen) = watch::channel(None);
    let (samples, load) = watch::channel(None);
    let slots = runtime::Slots {
        capacity: config.capacity,
        ollama: config.ollama_slots,
    };
    let runtime = (config.runtime.clone(), slots);
    let watching = runtime::watch_runtime(runtime, config.timing, reports, status.clone());
    spawn(tasks, "runtime probe", OnExit::Stop, watching);
    spawn(
        tasks,
        "load",
        OnExit::Log,
        system::watch_load(config.timing.metrics, samples),
    );
    (seen, load)
}

async fn stop(tasks: &Tasks) {
    if let Err(error) = tasks.stop(TASKS_GRACE).await {
        tracing::warn!(%error, "Tasks were left behind");
    }
}

pub(super) fn spawn(
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
