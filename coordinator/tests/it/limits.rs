//! What a caller cannot do: stay half-way, take everything, speak in two tongues, be elsewhere.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use ollama_simulator::wait::PATIENCE;
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use crate::support::agent::FakeAgent;
use crate::support::coordinator::TestCoordinator;
use crate::support::upstream::FakeUpstream;

const SHORT: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn half_sent_head_is_closed_in_time() {
    let coordinator = TestCoordinator::builder().head_timeout(SHORT).start().await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;
    let started = Instant::now();

    raw.send("GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow:")
        .await;
    raw.read_to_the_end().await;

    assert!(
        started.elapsed() >= SHORT.mul_f64(0.9),
        "closed after {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn half_sent_body_is_refused_in_time() {
    let coordinator = TestCoordinator::builder().head_timeout(HOUR).start().await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;
    raw.send("POST /api/agents HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"mach")
        .await;

    tokio::time::pause();
    let answer = raw.read_until("request_timeout").await;

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn connections_above_the_limit_wait_their_turn() {
    let coordinator = TestCoordinator::builder().max_connections(2).start().await;
    let (mut first, mut second) = (
        Raw::connect(coordinator.api.addr()).await,
        Raw::connect(coordinator.api.addr()).await,
    );
    for raw in [&mut first, &mut second] {
        raw.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        raw.read_until("instance_id").await;
    }
    let mut third = Box::pin(coordinator.api.get("/healthz"));

    let before = timeout(SHORT, &mut third).await;
    drop(first);
    let after = timeout(PATIENCE, &mut third).await;

    assert!(before.is_err(), "a third connection was served");
    assert_eq!(after.expect("it is served now").status, StatusCode::OK);
}

#[tokio::test]
async fn idle_connection_stays_usable() {
    let coordinator = TestCoordinator::builder().head_timeout(SHORT).start().await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;
    let ask = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    raw.send(ask).await;
    raw.read_until("instance_id").await;

    // An agent of a large fleet has nothing to say for a minute.
    sleep(SHORT * 3).await;
    raw.send(ask).await;

    assert!(
        raw.read_until("instance_id")
            .await
            .starts_with("HTTP/1.1 200 OK")
    );
}

#[tokio::test]
async fn connection_that_is_idle_for_too_long_is_closed_even_half_way_into_a_head() {
    let coordinator = TestCoordinator::builder().idle_timeout(SHORT).start().await;
    let ask = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

    for rest in ["", "GET /healthz HTTP/1.1\r\nx-slow:"] {
        let mut raw = Raw::connect(coordinator.api.addr()).await;
        raw.send(ask).await;
        raw.read_until("instance_id").await;
        raw.send(rest).await;
        assert_eq!(raw.read_to_the_end().await, "");
    }
}

#[rstest]
#[case::two_lengths("content-length: 2\r\ncontent-length: 3\r\n\r\n{}")]
#[case::chunked_not_last("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n")]
#[case::almost_chunked("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n")]
#[case::length_with_a_sign("content-length: +2\r\n\r\n{}")]
#[case::space_before_the_colon("content-length : 2\r\n\r\n{}")]
#[case::nul_in_a_value("x-a: \0\r\n\r\n")]
#[case::folded_line("x-a: 1\r\n\u{b}x-b: 2\r\n\r\n")]
#[tokio::test]
async fn ambiguous_request_is_refused_and_its_connection_closed(#[case] rest: &str) {
    let coordinator = TestCoordinator::new().await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;

    raw.send(&format!("POST /api/generate HTTP/1.1\r\nhost: x\r\n{rest}"))
        .await;

    let answer = raw.read_to_the_end().await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn request_with_two_framings_reaches_a_runtime_as_one_with_one() {
    let coordinator = TestCoordinator::new().await;
    let upstream = FakeUpstream::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    let mut agent = FakeAgent::new("gpu-1").with_models(&["a:latest"]);
    agent.runtime = upstream.addr;
    agent.join(coordinator.api).await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;

    raw.send(
        "POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n\
         d\r\n{\"model\":\"a\"}\r\n0\r\n\r\nPOST /smuggled HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    raw.read_to_the_end().await;

    let arrived = upstream.requests();
    assert!(arrived.len() <= 1, "{arrived:?}");
    for request in arrived {
        let head = request.to_lowercase();
        assert!(
            !head.contains("transfer-encoding") && !head.contains("smuggled"),
            "{head}"
        );
        assert!(
            head.contains("content-length: 13") && head.ends_with("{\"model\":\"a\"}"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn answers_to_one_connection_come_in_the_order_of_its_requests() {
    let coordinator = TestCoordinator::new().await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;

    raw.send(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /api/version HTTP/1.1\r\nhost: x\r\n\
         connection: close\r\n\r\n",
    )
    .await;

    let answers = raw.read_to_the_end().await;
    let (healthz, version) = (
        answers.find("instance_id"),
        answers.find("\"version\":\"0.0.0\""),
    );
    assert!(healthz.is_some() && healthz < version, "{answers}");
}

#[tokio::test]
async fn body_without_an_end_is_cut_at_the_limit() {
    let coordinator = TestCoordinator::new().await;
    let mut raw = Raw::connect(coordinator.api.addr()).await;
    raw.send("POST /api/agents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let chunk = Bytes::from(format!("10000\r\n{}\r\n", " ".repeat(0x10000)));

    let mut sent = 0;
    while sent < 64 << 20 && raw.stream.write_all(&chunk).await.is_ok() {
        sent += chunk.len();
    }

    assert!(sent < 32 << 20, "{sent} bytes were taken");
}

/// A connection on which anything can be sent.
struct Raw {
    stream: TcpStream,
}

impl Raw {
    async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("it listens");
        Self { stream }
    }

    async fn send(&mut self, text: &str) {
        let sent = self.stream.write_all(text.as_bytes()).await;
        sent.expect("it is open");
    }

    /// Reads until `end` has come.
    async fn read_until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.contains(end) {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).await.expect("it is open");
            assert_ne!(read, 0, "closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
        text
    }

    /// Reads until the other end closes.
    async fn read_to_the_end(&mut self) -> String {
        let mut bytes = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        match read.expect("it is closed in time") {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
        String::from_utf8(bytes).expect("it is text")
    }
}
