//! A model server that follows a script: a real HTTP server that speaks the Ollama, OpenAI and
//! Anthropic routes, answers reproducible words, and fails exactly where it is told to.
//!
//! It runs no model, keeps no files and listens on 127.0.0.1 only.

pub mod record;
pub mod script;

mod account;
mod anthropic;
mod ask;
mod audio;
mod blobs;
mod catalogue;
mod clock;
mod engine;
mod generation;
mod library;
mod message;
mod ollama;
mod openai;
mod openai_embeddings;
mod progress;
mod prompt;
mod reply;
mod residency;
mod responses;
mod route;
mod routes;
mod server;
mod tools;
mod wire;
mod words;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ollama_coordinator_common::protocol::runtime::Model;
use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use self::engine::Engine;
use self::record::RecordedRequest;
use self::script::{FailureMode, FailureScope, RuntimeScript};
use self::server::Server;
use crate::door::Door;

const STOP_WITHIN: Duration = Duration::from_secs(5);

/// A running scripted runtime. Clones are the same runtime; it stops with the last of them.
#[derive(Debug, Clone)]
pub struct ScriptedRuntime {
    addr: SocketAddr,
    engine: Arc<Engine>,
    open: Arc<watch::Sender<bool>>,
    is_open: watch::Receiver<bool>,
    tasks: Tasks,
    _stop: Arc<DropGuard>,
}

impl ScriptedRuntime {
    /// Starts a runtime on a free port.
    ///
    /// # Errors
    /// No port could be opened.
    pub async fn start(script: RuntimeScript) -> io::Result<Self> {
        Self::start_on(0, script).await
    }

    /// Starts a runtime on `port` of 127.0.0.1.
    ///
    /// # Errors
    /// The port could not be opened.
    pub async fn start_on(port: u16, script: RuntimeScript) -> io::Result<Self> {
        let (door, addr) = Door::open(port)?;
        let (open, wanted) = watch::channel(script.failure != FailureMode::Refuse);
        let (opened, is_open) = watch::channel(true);
        let engine = Arc::new(Engine::new(script));
        let server = Server {
            engine: Arc::clone(&engine),
            door,
            wanted,
            is_open: opened,
        };
        let tasks = Tasks::default();
        let serving = server.run(tasks.token().clone());
        tasks.spawn("simulated runtime", OnExit::Log, serving);
        let runtime = Self {
            addr,
            engine,
            open: Arc::new(open),
            is_open,
            _stop: Arc::new(tasks.token().clone().drop_guard()),
            tasks,
        };
        runtime.follow_script().await;
        Ok(runtime)
    }

    /// Returns where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Returns the script as it is now.
    pub fn script(&self) -> Arc<RuntimeScript> {
        self.engine.script()
    }

    /// Changes the script; requests that have begun keep the old one. Returns when the port is open
    /// or closed as the new script wants.
    pub async fn change(&self, change: impl FnOnce(&mut RuntimeScript)) {
        self.engine.change(change);
        self.follow_script().await;
    }

    /// Lets requests that run a model fail from now on; probes still see a working runtime.
    pub async fn set_failure(&self, failure: FailureMode) {
        let scope = FailureScope::Inference;
        self.change(|script| (script.failure, script.failure_scope) = (failure, scope))
            .await;
    }

    /// Lets every request fail from now on.
    pub async fn set_failure_everywhere(&self, failure: FailureMode) {
        let scope = FailureScope::Everything;
        self.change(|script| (script.failure, script.failure_scope) = (failure, scope))
            .await;
    }

    /// Changes what it can serve.
    pub async fn set_models(&self, models: Vec<Model>) {
        self.change(|script| script.models = models).await;
    }

    /// Returns how many requests have come.
    pub fn requests(&self) -> u64 {
        read(&self.engine.record.requests)
    }

    /// Returns how many requests are not fully answered.
    pub fn in_flight(&self) -> u64 {
        read(&self.engine.record.in_flight)
    }

    /// Returns how many requests wait for a slot.
    pub fn queued(&self) -> usize {
        self.engine.queued()
    }

    /// Returns how many clients hung up before their answer was complete.
    pub fn cancelled(&self) -> u64 {
        read(&self.engine.record.cancelled)
    }

    /// Returns how many times a model was loaded into memory.
    pub fn loads(&self) -> u64 {
        read(&self.engine.record.loads)
    }

    /// Returns the names of the models in memory.
    pub fn loaded_models(&self) -> Vec<String> {
        let loaded = self.engine.loaded().into_iter();
        loaded.map(|(name, _leaves_at)| name).collect()
    }

    /// Returns the most recent requests (some hundreds), oldest first, as they arrived.
    pub fn recent_requests(&self) -> Vec<RecordedRequest> {
        self.engine.record.recent()
    }

    /// Returns how many of the most recent requests went to `path`.
    pub fn recent_requests_to(&self, path: &str) -> usize {
        let recent = self.recent_requests();
        recent.iter().filter(|r| r.uri.path() == path).count()
    }

    /// Breaks all connections and closes the port.
    pub async fn stop(self) {
        if let Err(error) = self.tasks.stop(STOP_WITHIN).await {
            tracing::error!(%error, "Simulated runtime did not stop");
        }
    }

    async fn follow_script(&self) {
        let wanted = self.script().failure != FailureMode::Refuse;
        self.open.send_replace(wanted);
        let mut is_open = self.is_open.clone();
        if is_open
            .wait_for(|is_open| *is_open == wanted)
            .await
            .is_err()
        {
            tracing::error!(runtime.addr = %self.addr, "Simulated runtime has ended");
        }
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
