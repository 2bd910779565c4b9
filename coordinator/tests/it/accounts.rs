//! However requests end, nothing stays counted.
//!
//! `OLLAMA_COORDINATOR_ABORTS` sets how many requests; the default is that of a quick run.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use ollama_simulator::runtime::ScriptedRuntime;
use ollama_simulator::runtime::script::{FailureMode, RuntimeScript};
use ollama_simulator::wait::{PATIENCE, wait_for};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::agent::FakeAgent;
use crate::support::api::{Api, BoxError, request};
use crate::support::coordinator::TestCoordinator;
use crate::support::{say, setting};

const CLIENTS: u64 = 48;
const LONGEST_PATIENCE: Duration = Duration::from_millis(15);
/// One request in so many is given up at a random moment.
const ABORTED: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_stays_counted_after_many_requests_with_random_aborts() {
    let requests = setting("OLLAMA_COORDINATOR_ABORTS", 20_000);
    let seed: u64 = rand::random();
    let coordinator = TestCoordinator::new().await;
    let machines = machines(coordinator.api).await;
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let rng = SmallRng::seed_from_u64(seed ^ client);
        let next = Arc::clone(&next);
        clients.spawn(ask_and_leave(coordinator.api, rng, next, requests));
    }

    let (mut whole, mut aborted) = (0, 0);
    while let Some(client) = clients.join_next().await {
        let (answered, left) = client.unwrap();
        whole += answered;
        aborted += left;
    }

    say(&format!(
        "{requests} requests, seed {seed}: {whole} answered, {aborted} given up"
    ));
    assert_eq!(whole + aborted, requests);
    assert!(whole > 0 && aborted > 0);
    let api = coordinator.api;
    let counted = async || metric(api, "ollama_coordinator_in_flight ").await;
    wait_for("nothing in flight", PATIENCE, counted, |count| *count == 0).await;
    let queued = async || metric(api, "ollama_coordinator_queued").await;
    wait_for("nothing queued", PATIENCE, queued, |count| *count == 0).await;
    for agent in api.agents().await {
        assert_eq!(agent.in_flight, 0);
    }
    for machine in machines {
        let working = async || machine.in_flight();
        wait_for("runtime idle", PATIENCE, working, |count| *count == 0).await;
    }
}

/// Two machines that fail now and then, with fewer slots than there are clients.
async fn machines(api: Api) -> Vec<ScriptedRuntime> {
    let mut machines = Vec::new();
    for machine in 0..2 {
        let script = RuntimeScript {
            slots: NonZeroU32::MIN.saturating_add(7),
            answer_tokens: NonZeroU32::new(5),
            tokens_per_second: (machine == 0).then(|| NonZeroU32::MIN.saturating_add(999)),
            ..RuntimeScript::default()
        };
        let runtime = ScriptedRuntime::start(script)
            .await
            .expect("a port is free");
        let mut agent = FakeAgent::in_front_of(&runtime, "gpu");
        agent.report.slots = Some(runtime.script().slots);
        agent.join(api).await;
        machines.push(runtime);
    }
    machines[0]
        .set_failure(FailureMode::ErrorLine { after_tokens: 3 })
        .await;
    machines
}

/// Asks again and again, and leaves now and then; returns how often it was answered and left.
async fn ask_and_leave(
    api: Api,
    mut rng: SmallRng,
    next: Arc<AtomicU64>,
    requests: u64,
) -> (u64, u64) {
    let (mut answered, mut left) = (0, 0);
    let mut connection = None;
    while next.fetch_add(1, Ordering::Relaxed) < requests {
        let stream = rng.random();
        let patience = if rng.random_ratio(1, ABORTED) {
            LONGEST_PATIENCE.mul_f64(rng.random())
        } else {
            PATIENCE
        };
        if timeout(patience, ask(api, &mut connection, stream))
            .await
            .is_ok()
        {
            answered += 1;
        } else {
            connection = None;
            left += 1;
        }
    }
    (answered, left)
}

/// A connection and the task that drives it.
type Connection = (SendRequest<Full<Bytes>>, JoinSet<()>);

/// Asks over a connection that is kept; what breaks counts as answered.
async fn ask(api: Api, connection: &mut Option<Connection>, stream: bool) {
    let body = json!({ "model": "simulated-small", "prompt": "hi", "stream": stream });
    let ask = request(Method::POST, "/api/generate", body.to_string());
    if exchange(api, connection, ask).await.is_err() {
        *connection = None;
    }
}

async fn exchange(
    api: Api,
    connection: &mut Option<Connection>,
    mut ask: Request<Full<Bytes>>,
) -> Result<(), BoxError> {
    let mut open = if let Some(open) = connection.take() {
        open
    } else {
        let stream = TcpStream::connect(api.addr()).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let mut driving = JoinSet::new();
        driving.spawn(async move { drop(driver.await) });
        (sender, driving)
    };
    let host = api.addr().to_string().parse()?;
    ask.headers_mut().insert(http::header::HOST, host);
    open.0.ready().await?;
    open.0
        .send_request(ask)
        .await?
        .into_body()
        .collect()
        .await?;
    *connection = Some(open);
    Ok(())
}

/// Adds up a gauge over its labels.
async fn metric(api: Api, name: &str) -> u64 {
    let page = api.get("/metrics").await.text().await;
    let values = page
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}
