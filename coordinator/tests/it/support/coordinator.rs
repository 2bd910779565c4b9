//! The real coordinator in the test's own process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
use ollama_coordinator::app::{self, RunError};
use ollama_coordinator::config::{Cli, Config};
use ollama_coordinator::server::ServerLimits;
use ollama_coordinator_common::shutdown::Shutdown;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::api::Api;
use super::port::ReservedPort;

/// Long enough that no lease ends by itself, however slow the machine.
const ENDLESS: &str = "1h";

/// A coordinator on a port and a directory of its own, which it keeps when it is restarted.
#[derive(Debug)]
pub(crate) struct TestCoordinator {
    pub(crate) api: Api,
    port: ReservedPort,
    dir: TempDir,
    config: Config,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    shutdown: Shutdown,
    serving: JoinSet<Result<(), RunError>>,
}

/// How a [`TestCoordinator`] is to be; leases are endless unless said otherwise.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    lease: Option<(Duration, Duration)>,
    limits: ServerLimits,
    flags: Vec<String>,
}

impl Builder {
    /// Adds flags as they are written on the command line.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(ToString::to_string));
        self
    }

    /// Asks for a heartbeat interval and the silence after which an agent is offline.
    pub(crate) fn lease(mut self, interval: Duration, timeout: Duration) -> Self {
        self.lease = Some((interval, timeout));
        self
    }

    pub(crate) fn head_timeout(mut self, head_timeout: Duration) -> Self {
        self.limits.head_timeout = head_timeout;
        self
    }

    pub(crate) fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.limits.idle_timeout = idle_timeout;
        self
    }

    pub(crate) fn write_timeout(mut self, write_timeout: Duration) -> Self {
        self.limits.write_timeout = write_timeout;
        self
    }

    pub(crate) fn max_connections(mut self, max_connections: usize) -> Self {
        self.limits.max_connections = max_connections;
        self
    }

    pub(crate) async fn start(self) -> TestCoordinator {
        let dir = tempfile::tempdir().expect("there is room for a directory");
        let port = ReservedPort::new();
        let mut config = config(dir.path(), self.lease, self.flags);
        config.limits = self.limits;
        let mut coordinator = TestCoordinator {
            api: Api::new(port.addr()),
            port,
            dir,
            config,
            running: None,
        };
        coordinator.start().await;
        coordinator
    }
}

impl TestCoordinator {
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) async fn new() -> Self {
        Self::builder().start().await
    }

    /// Starts it again after [`Self::stop`].
    pub(crate) async fn start(&mut self) {
        let shutdown = Shutdown::default();
        let mut serving = JoinSet::new();
        serving.spawn(app::serve(
            self.port.listen(),
            self.config.clone(),
            shutdown.clone(),
        ));
        self.running = Some(Running { shutdown, serving });
        let ready = self.api.get("/readyz").await;
        assert_eq!(ready.status, 200, "{ready:?}");
    }

    /// Asks it to stop; it goes on until it has.
    pub(crate) fn ask_to_stop(&self) {
        let running = self.running.as_ref().expect("it runs");
        running.shutdown.trigger();
    }

    /// Stops it as a signal would, and waits for the end.
    pub(crate) async fn stop(&mut self) {
        self.ask_to_stop();
        let mut running = self.running.take().expect("it runs");
        let ended = running.serving.join_next().await.expect("it was started");
        ended
            .expect("it does not panic")
            .expect("it ends without an error");
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn agents_file(&self) -> PathBuf {
        self.data_dir().join("agents.json")
    }
}

fn config(data_dir: &Path, lease: Option<(Duration, Duration)>, flags: Vec<String>) -> Config {
    let mut args = vec![
        "ollama-coordinator".to_owned(),
        "--host=127.0.0.1".to_owned(),
        "--no-local-agent".to_owned(),
        // With a directory of its own this only keeps it from importing what this home has.
        "--dev".to_owned(),
        format!("--data-dir={}", data_dir.display()),
    ];
    match lease {
        Some((interval, timeout)) => {
            args.push(format!("--heartbeat-interval={}ms", interval.as_millis()));
            args.push(format!("--agent-timeout={}ms", timeout.as_millis()));
        }
        None => args.push(format!("--agent-timeout={ENDLESS}")),
    }
    args.extend(flags);
    Cli::parse_from(args).config
}
