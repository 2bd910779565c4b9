//! Requests that share a tunnel with one that stands still, or that is broken off: the real agent
//! carries them.

use std::num::NonZeroU32;

use ollama_agent::Config;
use ollama_coordinator_common::base_url::BaseUrl;
use ollama_coordinator_common::id::AgentId;
use ollama_coordinator_common::protocol::tunnel::LinkKind;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_coordinator_common::shutdown::Shutdown;
use ollama_simulator::wait::{PATIENCE, wait_for};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::api::{Answer, Api};
use crate::support::bulk::{Bulk, BulkRuntime, LARGE, SMALL_BUFFER, Upload, wait_until_running};
use crate::support::coordinator::TestCoordinator;

/// What all buffers on the way hold at most, the system's included; a fraction of [`LARGE`].
const ALL_BUFFERS: u64 = LARGE / 3;

#[tokio::test]
async fn reader_who_takes_nothing_holds_up_nobody_and_little_is_kept_for_him() {
    let setup = Setup::new().await;
    let mut idle = setup.connect().await;
    let question = Bulk::Endless.question().to_string();
    let length = question.len();
    let request =
        format!("POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{question}");
    idle.write_all(request.as_bytes()).await.unwrap();
    setup.wait_for_requests(1).await;

    let text = setup.ask(Bulk::Large).await.text().await;

    assert!(text.len() as u64 >= LARGE, "{}", text.len());
    let kept = setup.runtime.endless_bytes();
    assert!(kept < ALL_BUFFERS, "the runtime got rid of {kept} bytes");
    drop(idle);
    setup.wait_for_requests(0).await;
}

#[tokio::test]
async fn upload_that_nobody_takes_holds_up_nobody_and_little_is_kept_of_it() {
    let setup = Setup::new().await;
    let held = Upload::Held.begin(setup.connect().await);
    wait_until_running(&setup.runtime, 1).await;

    let other = Upload::Taken.begin(setup.connect().await);

    other.succeeds().await;
    let sent = held.sent();
    assert!(sent < ALL_BUFFERS, "the client got rid of {sent} bytes");
    setup.runtime.let_go();
    held.succeeds().await;
    assert_eq!(setup.runtime.taken_bytes(), 2 * LARGE);
}

#[tokio::test]
async fn client_that_leaves_ends_its_request_at_the_runtime_and_no_other() {
    let setup = Setup::new().await;
    let mut first = setup.ask(Bulk::Endless).await;
    let second = setup.ask(Bulk::Endless).await;
    setup.wait_for_requests(2).await;

    drop(second);

    setup.wait_for_requests(1).await;
    assert!(first.next_frame().await.unwrap().is_some());
    drop(first);
    setup.wait_for_requests(0).await;
}

#[tokio::test]
async fn client_that_leaves_amid_its_upload_ends_it_at_the_runtime() {
    let setup = Setup::new().await;
    let mut client = setup.connect().await;
    client
        .write_all(Upload::Taken.head().as_bytes())
        .await
        .unwrap();
    client.write_all(b"the beginning").await.unwrap();
    wait_until_running(&setup.runtime, 1).await;

    drop(client);

    wait_until_running(&setup.runtime, 0).await;
}

#[tokio::test]
async fn answer_that_breaks_off_at_the_runtime_breaks_off_at_the_client_and_no_other() {
    let setup = Setup::new().await;
    let mut other = setup.ask(Bulk::Endless).await;
    setup.wait_for_requests(1).await;

    let (text, error) = setup.ask(Bulk::Broken).await.read_all().await;

    let is_told = text.contains("\"error\"") || error.is_some();
    assert!(is_told && !text.contains("\"done\":true"), "{text}");
    setup.wait_for_requests(1).await;
    assert!(other.next_frame().await.unwrap().is_some());
}

/// A coordinator, a runtime, and a real agent that carries between them.
struct Setup {
    coordinator: TestCoordinator,
    runtime: BulkRuntime,
    id: AgentId,
    shutdown: Shutdown,
    _agent: JoinSet<()>,
    _state_dir: TempDir,
}

impl Setup {
    async fn new() -> Self {
        let coordinator = TestCoordinator::new().await;
        let runtime = BulkRuntime::start().await;
        let state_dir = tempfile::tempdir().expect("there is room");
        let mut config = Config::new(
            BaseUrl::from_addr(coordinator.api.addr()),
            BaseUrl::from_addr(runtime.addr()),
            state_dir.path().to_owned(),
        );
        config.capacity = NonZeroU32::new(16);
        let shutdown = Shutdown::default();
        let mut agent = JoinSet::new();
        let running = ollama_agent::run(config, shutdown.clone());
        agent.spawn(async { running.await.expect("the agent runs") });
        let routable = async || {
            let agents = coordinator.api.agents().await;
            agents.into_iter().find(|agent| agent.routable)
        };
        let agent_view = wait_for("routable", PATIENCE, routable, Option::is_some).await;
        let agent_view = agent_view.expect("it is some");
        assert_eq!(agent_view.link, LinkKind::Tunnel);
        Self {
            id: agent_view.id,
            coordinator,
            runtime,
            shutdown,
            _agent: agent,
            _state_dir: state_dir,
        }
    }

    fn api(&self) -> Api {
        self.coordinator.api
    }

    /// Connects a client for which the system keeps little.
    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        let small = socket.set_recv_buffer_size(SMALL_BUFFER);
        small.expect("the buffer may be small");
        let connected = socket.connect(self.api().addr()).await;
        connected.expect("the coordinator listens")
    }

    async fn ask(&self, bulk: Bulk) -> Answer {
        self.api().post("/api/chat", &bulk.question()).await
    }

    /// Waits until so many requests run, as the runtime and as the coordinator see it.
    async fn wait_for_requests(&self, count: u32) {
        wait_until_running(&self.runtime, count).await;
        let is_so = |agent: &AgentView| agent.in_flight == count;
        let api = self.api();
        api.wait_for_agent(self.id, "its requests counted", is_so)
            .await;
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
