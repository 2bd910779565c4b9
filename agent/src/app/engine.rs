//! One set of settings at work: probe, session and tunnel, from their start to their end.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::protocol::runtime::RuntimeReport;
use ollama_coordinator_common::protocol::system::Metrics;
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::sync::{Notify, watch};

use super::{AgentError, TASKS_GRACE};
use crate::config::{Config, Link};
use crate::control::Control;
use crate::identity::Identity;
use crate::session::{SessionLoop, Sources};
use crate::status::AgentStatus;
use crate::tunnel::{Keeper, Ties};
use crate::{runtime, system};

/// Serves with one set of settings, until `shutdown` or for as long as it can.
pub(super) async fn run_engine(
    config: &Config,
    control: &Control,
    shutdown: Shutdown,
) -> Result<(), AgentError> {
    let status = control.status_sender();
    status.send_modify(|status| {
        *status = AgentStatus {
            paused: status.paused,
            ..AgentStatus::starting(config)
        };
    });
    let tasks = Tasks::default();
    let (runtime, load) = start_watching(config, &tasks, status.clone());
    let ended = if let Some(coordinator) = &config.coordinator {
        let sources = Sources {
            runtime,
            load,
            pauses: control.pauses(),
            renewal: Arc::new(Notify::new()),
            standing: watch::Sender::new(None),
            status,
            shutdown,
        };
        serve(config, coordinator, sources, &tasks).await
    } else {
        shutdown.stopping().await;
        Ok(())
    };
    if let Err(error) = tasks.stop(TASKS_GRACE).await {
        tracing::warn!(%error, "Tasks were left behind");
    }
    ended
}

/// Registers with a coordinator and carries its requests; then lets those that run end.
async fn serve(
    config: &Config,
    coordinator: &BaseUrl,
    sources: Sources,
    tasks: &Tasks,
) -> Result<(), AgentError> {
    let state_dir = config.state_dir.clone();
    let opened = tokio::task::spawn_blocking(move || Identity::open(&state_dir)).await;
    let identity = opened.expect("reading the identity does not panic")?;
    let shutdown = sources.shutdown.clone();
    let tunnel = start_tunnel(config, coordinator, &sources);
    let session = SessionLoop::new(config, coordinator, identity, sources);
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
    ended
}

/// Starts the tunnel, if there is to be one. It ends after the session, so it has an owner of its own.
fn start_tunnel(config: &Config, coordinator: &BaseUrl, sources: &Sources) -> Tasks {
    let tasks = Tasks::default();
    if config.link == Link::Tunnel {
        let ties = Ties {
            standing: sources.standing.subscribe(),
            renewal: Arc::clone(&sources.renewal),
            status: sources.status.clone(),
            shutdown: sources.shutdown.clone(),
        };
        let keeping = Keeper::new(config, coordinator, ties).run(tasks.token().clone());
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
