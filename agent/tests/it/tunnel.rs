//! The tunnel, between an agent and a coordinator that the test plays.

mod carrying;
mod ending;
mod proxies;
mod reopening;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::any;
use hyper::body::Incoming;
use ollama_agent::Config;
use ollama_coordinator_common::base_url::BaseUrl;
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::support::agent::{TestAgent, config};
use crate::support::coordinator::FakeCoordinator;
use crate::support::server::{Reserved, Server};
use crate::support::tunnel::{TestTunnel, body, in_time};

/// A coordinator, an agent and the tunnel between them.
struct Carried {
    coordinator: FakeCoordinator,
    agent: TestAgent,
    tunnel: TestTunnel,
    state_dir: TempDir,
}

async fn carry_to(runtime: BaseUrl) -> Carried {
    carry_with(|config| config.runtime = runtime).await
}

async fn carry_with(change: impl FnOnce(&mut Config)) -> Carried {
    let mut coordinator = FakeCoordinator::start();
    let state_dir = tempfile::tempdir().unwrap();
    let mut config = config(coordinator.url(), state_dir.path());
    change(&mut config);
    let agent = TestAgent::start_with(config);
    let tunnel = coordinator.tunnel().await;
    Carried {
        coordinator,
        agent,
        tunnel,
        state_dir,
    }
}

fn serve(router: Router) -> Server {
    Reserved::new().serve(router)
}

/// A runtime that gives each request to the test, which answers it.
struct HeldRuntime {
    server: Server,
    requests: mpsc::UnboundedReceiver<Held>,
}

/// One request at the runtime; dropped without an answer, its connection is closed.
struct Held {
    _request: Request,
    answer: tokio::sync::oneshot::Sender<Body>,
}

impl HeldRuntime {
    fn start() -> Self {
        let (sender, requests) = mpsc::unbounded_channel();
        let hold = async |State(sender): State<mpsc::UnboundedSender<Held>>, request: Request| {
            let (answer, answered) = tokio::sync::oneshot::channel();
            drop(sender.send(Held {
                _request: request,
                answer,
            }));
            answered.await.unwrap_or_default()
        };
        let router = Router::new().route("/held", any(hold)).with_state(sender);
        Self {
            server: serve(router),
            requests,
        }
    }

    async fn next(&mut self) -> Held {
        in_time(self.requests.recv()).await.unwrap()
    }
}

/// Returns the request that [`HeldRuntime`] holds.
fn held() -> http::Request<Body> {
    http::Request::get("http://a/held")
        .body(Body::empty())
        .unwrap()
}

impl Carried {
    /// Sends a request that the runtime begins to answer, and returns what the answer goes on with.
    async fn begin(
        &mut self,
        runtime: &mut HeldRuntime,
    ) -> (mpsc::Sender<&'static str>, http::Response<Incoming>) {
        let (pieces, body) = body();
        let (answer, begun) = tokio::join!(self.tunnel.send(held()), async {
            runtime.next().await.answer.send(body)
        });
        begun.unwrap();
        (pieces, answer.unwrap())
    }
}
