//! The agent's `doctor` as people run it, and servers that are not what they should be.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ollama_coordinator_common::doctor::{Answer, Check, CheckId, Report};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::support::api::panic_at;
use crate::support::process::{Ended, finish};

/// A home with an agent that may be examined.
pub(crate) struct Patient {
    home: TempDir,
    environment: Vec<(String, String)>,
}

impl Patient {
    /// Makes one with a coordinator and a runtime somewhere.
    pub(crate) fn new(coordinator: &str, runtime: SocketAddr) -> Self {
        let home = tempfile::tempdir().expect("there is room for a directory");
        let patient = Self {
            home,
            environment: Vec::new(),
        };
        patient
            .with("OLLAMA_AGENT_COORDINATOR", coordinator)
            .with("OLLAMA_AGENT_RUNTIME", &runtime.to_string())
    }

    /// Sets a variable of its environment.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.home.path().join(".ollama-coordinator/agent")
    }

    /// Returns the agent's command here.
    pub(crate) fn command(&self) -> Command {
        self.running(Command::new(agent()))
    }

    /// Returns the command of another program that is told where the agent's binary is.
    pub(crate) fn within(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg(agent());
        self.running(command)
    }

    fn running(&self, mut command: Command) -> Command {
        let environment = self.environment.iter().map(|(name, value)| (name, value));
        command
            .env_clear()
            .env("HOME", self.home.path())
            .envs(environment);
        command.kill_on_drop(true);
        command
    }

    /// Has its `doctor` look.
    pub(crate) async fn examine(&self) -> Examined {
        let mut command = self.command();
        command.args(["doctor", "--json"]);
        Examined::read(finish(command).await)
    }
}

/// Returns where the agent's binary is.
fn agent() -> PathBuf {
    let coordinator = PathBuf::from(env!("CARGO_BIN_EXE_ollama-coordinator"));
    let agent = coordinator.with_file_name("ollama-agent");
    assert!(agent.exists(), "cargo build --workspace --bins");
    agent
}

/// What a `doctor` said.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) code: Option<i32>,
    pub(crate) report: Report,
}

impl Examined {
    /// Reads what a `doctor` with `--json` wrote.
    pub(crate) fn read(ended: Ended) -> Self {
        let report = serde_json::from_str(&ended.stdout);
        let report = report.unwrap_or_else(|error| panic_at(&format!("{ended:?}"), &error));
        Self {
            code: ended.code,
            report,
        }
    }

    /// Returns the check of this id.
    pub(crate) fn check(&self, id: CheckId) -> &Check {
        let found = self.report.checks.iter().find(|check| check.id == id);
        found.expect("it was looked at")
    }

    /// Expects this to be the first thing that is broken, and to be explained so.
    pub(crate) fn assert_broken(&self, id: CheckId, found: &str, remedy: &str) {
        assert_eq!(self.report.first_broken, Some(id), "{self:#?}");
        assert_eq!(self.code, Some(4), "{self:#?}");
        let check = self.check(id);
        assert!(check.found.contains(found), "{found}\nis not in\n{check}");
        let told = check.remedy.as_deref().unwrap_or_default();
        assert!(told.contains(remedy), "{remedy}\nis not in\n{told}");
        assert!(!self.report.to_text().contains('\u{1b}'));
    }

    /// Expects that all is well, but for this.
    pub(crate) fn assert_warned(&self, id: CheckId, found: &str) {
        assert_eq!(
            (self.report.first_broken, self.code),
            (None, Some(0)),
            "{self:#?}"
        );
        let check = self.check(id);
        assert_eq!(check.answer, Answer::Warning, "{check:?}");
        assert!(check.found.contains(found), "{found}\nis not in\n{check}");
    }
}

/// A server of this test.
pub(crate) struct Stranger {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

impl Stranger {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Serves these routes.
    pub(crate) async fn serving(router: Router) -> Self {
        let (listener, addr) = listen().await;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("it listens");
                let service = TowerToHyperService::new(router.clone());
                let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                connections.spawn(serving);
            }
        });
        Self {
            addr,
            _serving: serving,
        }
    }

    /// Answers everything alike.
    pub(crate) async fn answering(
        status: u16,
        content_type: &'static str,
        body: &'static str,
    ) -> Self {
        let status = axum::http::StatusCode::from_u16(status).expect("it is a status");
        let answer = async move || (status, [(header::CONTENT_TYPE, content_type)], body);
        Self::serving(Router::new().fallback(answer)).await
    }

    /// Says these bytes to whoever says something.
    pub(crate) async fn saying(bytes: &'static [u8]) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let (listener, addr) = listen().await;
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("it listens");
                let mut asked = [0; 1024];
                if stream.read(&mut asked).await.is_ok_and(|read| read > 0) {
                    // Whoever hangs up has heard enough.
                    drop(stream.write_all(bytes).await);
                }
            }
        });
        Self {
            addr,
            _serving: serving,
        }
    }

    /// Passes for a coordinator, of which some things are said.
    pub(crate) async fn coordinator(about: Value, date: Option<String>) -> Self {
        let health = json!({ "service": "ollama-coordinator", "version": "0.1.0" });
        let health = async move || {
            let mut answer = axum::Json(health).into_response();
            if let Some(date) = date {
                let date = HeaderValue::from_str(&date).expect("it is text");
                answer.headers_mut().insert(header::DATE, date);
            }
            answer
        };
        let tunnel = json!({
            "type": "about:blank", "title": "t", "status": 404, "detail": "d", "code": "unknown_agent",
            "request_id": "00000000-0000-0000-0000-000000000000",
        });
        let no_upgrade = {
            let mut problem = tunnel.clone();
            problem["code"] = "upgrade_required".into();
            problem
        };
        let lets_upgrade = about["lets_upgrade"] != false;
        let tunnel = if lets_upgrade { tunnel } else { no_upgrade };
        let routes = Router::new()
            .route("/healthz", get(health))
            .route("/api/about", get(async move || axum::Json(about)))
            .route(
                "/api/agents/{id}/tunnel",
                get(async move || axum::Json(tunnel)),
            );
        Self::serving(routes).await
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr)
}

/// Lists what is in a directory, with the contents.
pub(crate) fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).expect("it can be read")));
        }
    }
    found.sort();
    found
}
