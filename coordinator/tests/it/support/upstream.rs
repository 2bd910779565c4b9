//! A runtime that answers with exactly the bytes a test wrote, and keeps exactly what it was sent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const VERSION: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 17\r\nconnection: close\r\n\r\n{\"version\":\"1.0\"}";

const NOT_FOUND: &[u8] =
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A server of one answer; looks at what it is are answered as a runtime does.
#[derive(Debug)]
pub(crate) struct FakeUpstream {
    pub(crate) addr: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl FakeUpstream {
    pub(crate) async fn start(answer: &'static str) -> Self {
        Self::slow(Duration::ZERO, answer).await
    }

    /// Starts a server that thinks before it answers.
    pub(crate) async fn slow(pause: Duration, answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let addr = listener.local_addr().expect("it listens");
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let mut serving = JoinSet::new();
        let kept = Arc::clone(&requests);
        serving.spawn(async move {
            while let Ok((stream, _peer)) = listener.accept().await {
                // A caller that breaks off is none of this server's business.
                drop(serve(stream, (pause, answer), &kept).await);
            }
        });
        Self {
            addr,
            requests,
            _serving: serving,
        }
    }

    /// Returns the requests so far but for looks at what it is, each as it came over the wire.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    (pause, answer): (Duration, &str),
    kept: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let request = read_request(&mut stream).await?;
    if request.starts_with("GET /api/version ") {
        return stream.write_all(VERSION).await;
    }
    if request.starts_with("GET /healthz ") {
        return stream.write_all(NOT_FOUND).await;
    }
    kept.lock().push(request);
    tokio::time::sleep(pause).await;
    stream.write_all(answer.as_bytes()).await
}

/// Reads one request whose length is told in its head.
async fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let mut text = String::new();
    loop {
        let mut chunk = [0; 4096];
        let read = stream.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&String::from_utf8_lossy(&chunk[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        let length = length.map_or(Ok(0), |length| length.trim().parse());
        if body.len() >= length.map_err(io::Error::other)? {
            return Ok(text);
        }
    }
}
