//! A runtime that sends and takes more than all buffers hold, and counts it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ollama_simulator::wait::{PATIENCE, wait_for};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::api::BoxError;

/// More than all buffers on a way hold.
pub(crate) const LARGE: u64 = 64 << 20;
/// How much the system is asked to keep for a reader.
pub(crate) const SMALL_BUFFER: u32 = 64 * 1024;
/// The one model.
pub(crate) const MODEL: &str = "bulk:latest";

const LINE: usize = 16 * 1024;
const BACKLOG: u32 = 64;

/// How an answer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bulk {
    /// For ever.
    Endless,
    /// For [`LARGE`] bytes and more, to its end.
    Large,
    /// Until it breaks off.
    Broken,
}

impl Bulk {
    /// Returns the question that is answered so.
    pub(crate) fn question(self) -> Value {
        let how = format!("{self:?}");
        json!({ "model": MODEL, "messages": [{ "role": "user", "content": how }] })
    }

    fn asked_for(body: &[u8]) -> Self {
        let has = |how: Self| {
            let name = format!("{how:?}");
            body.windows(name.len())
                .any(|window| window == name.as_bytes())
        };
        [Self::Endless, Self::Large]
            .into_iter()
            .find(|how| has(*how))
            .unwrap_or(Self::Broken)
    }
}

/// The runtime.
#[derive(Debug)]
pub(crate) struct BulkRuntime {
    addr: SocketAddr,
    counts: Arc<Counts>,
    may_take: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Counts {
    running: AtomicU32,
    endless: AtomicU64,
    taken: AtomicU64,
}

/// One request that runs.
struct Running(Arc<Counts>);

impl Running {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.running.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(counts))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl BulkRuntime {
    pub(crate) async fn start() -> Self {
        let socket = TcpSocket::new_v4().expect("there are sockets");
        let small = socket.set_recv_buffer_size(SMALL_BUFFER);
        small.expect("the buffer may be small");
        socket
            .bind(([127, 0, 0, 1], 0).into())
            .expect("a port is free");
        let listener = socket.listen(BACKLOG).expect("it listens");
        let addr = listener.local_addr().expect("it listens");
        let counts = Arc::<Counts>::default();
        let (may_take, gate) = watch::channel(false);
        let mut serving = JoinSet::new();
        let kept = Arc::clone(&counts);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                let (counts, gate) = (Arc::clone(&kept), gate.clone());
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&counts), gate.clone()));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // A caller that breaks off is none of this server's business.
                connections.spawn(async move { drop(connection.await) });
            }
        });
        Self {
            addr,
            counts,
            may_take,
            _serving: serving,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns how many answers and uploads run.
    pub(crate) fn running(&self) -> u32 {
        self.counts.running.load(Ordering::SeqCst)
    }

    /// Returns how many bytes of endless answers it has handed to the system or its library.
    pub(crate) fn endless_bytes(&self) -> u64 {
        self.counts.endless.load(Ordering::SeqCst)
    }

    /// Returns how many bytes of uploads it has taken.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.counts.taken.load(Ordering::SeqCst)
    }

    /// Takes the uploads that it has held.
    pub(crate) fn let_go(&self) {
        self.may_take.send_replace(true);
    }
}

type Answer = Response<BoxBody<Bytes, BoxError>>;

async fn answer(
    request: Request<Incoming>,
    counts: Arc<Counts>,
    mut gate: watch::Receiver<bool>,
) -> Result<Answer, BoxError> {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    if let Some(digest) = path.strip_prefix("/api/blobs/sha256:") {
        let _running = Running::new(&counts);
        if Upload::Held.is_at(digest) {
            gate.wait_for(|may_take| *may_take).await?;
        }
        while let Some(frame) = body.frame().await {
            let taken = frame?.data_ref().map_or(0, Bytes::len);
            counts.taken.fetch_add(taken as u64, Ordering::SeqCst);
        }
        return Ok(whole(StatusCode::CREATED, &json!({})));
    }
    if head.method == Method::POST && path == "/api/chat" {
        let body = body.collect().await?.to_bytes();
        let frames = lines(Bulk::asked_for(&body), Running::new(&counts));
        return Ok(Response::new(BoxBody::new(StreamBody::new(frames))));
    }
    let model = json!({ "name": MODEL, "model": MODEL, "size": 1, "digest": "0", "details": {} });
    Ok(match path {
        "/api/version" => whole(StatusCode::OK, &json!({ "version": "0.12.6" })),
        "/api/tags" => whole(StatusCode::OK, &json!({ "models": [model] })),
        "/api/ps" => whole(StatusCode::OK, &json!({ "models": [] })),
        _ => whole(StatusCode::NOT_FOUND, &json!({})),
    })
}

fn whole(status: StatusCode, body: &Value) -> Answer {
    let body = Full::from(body.to_string()).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed());
    *answer.status_mut() = status;
    answer
}

fn lines(
    bulk: Bulk,
    running: Running,
) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + Sync {
    let content = "x".repeat(LINE);
    let line = json!({ "model": MODEL, "message": { "role": "assistant", "content": content }, "done": false });
    let line = Bytes::from(format!("{line}\n"));
    let last =
        json!({ "model": MODEL, "message": { "role": "assistant", "content": "" }, "done": true });
    let last = Bytes::from(format!("{last}\n"));
    let enough = LARGE / LINE as u64;
    stream::iter(0..)
        .map(move |number: u64| match bulk {
            Bulk::Endless => {
                running
                    .0
                    .endless
                    .fetch_add(line.len() as u64, Ordering::SeqCst);
                Some(Ok(line.clone()))
            }
            Bulk::Large if number < enough => Some(Ok(line.clone())),
            Bulk::Large => (number == enough).then(|| Ok(last.clone())),
            Bulk::Broken if number == 0 => Some(Ok(line.clone())),
            Bulk::Broken => Some(Err("it breaks off".into())),
        })
        .take_while(|line| std::future::ready(line.is_some()))
        .filter_map(std::future::ready)
        .map(|line: Result<Bytes, BoxError>| line.map(Frame::data))
}

/// What becomes of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It is taken at once.
    Taken,
    /// It is taken when [`BulkRuntime::let_go`] says so.
    Held,
}

impl Upload {
    fn is_at(self, digest: &str) -> bool {
        digest.starts_with(self.digit())
    }

    fn digit(self) -> char {
        match self {
            Self::Taken => '0',
            Self::Held => '1',
        }
    }

    /// Returns the head of the request that uploads [`LARGE`] bytes.
    pub(crate) fn head(self) -> String {
        let digest = self.digit().to_string().repeat(64);
        format!(
            "POST /api/blobs/sha256:{digest} HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n"
        )
    }

    /// Begins to upload.
    pub(crate) fn begin(self, mut stream: TcpStream) -> Uploading {
        let head = self.head();
        let sent = Arc::<AtomicU64>::default();
        let counted = Arc::clone(&sent);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut answer = vec![0; 1024];
            stream.write_all(head.as_bytes()).await?;
            let bytes = vec![b'x'; LINE];
            for _ in 0..LARGE / LINE as u64 {
                stream.write_all(&bytes).await?;
                counted.fetch_add(LINE as u64, Ordering::SeqCst);
            }
            let read = stream.read(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
        });
        Uploading { sent, task }
    }
}

/// An upload under way; dropping it breaks it off.
#[derive(Debug)]
pub(crate) struct Uploading {
    sent: Arc<AtomicU64>,
    task: JoinSet<std::io::Result<String>>,
}

impl Uploading {
    /// Returns how many bytes the coordinator or the system has taken.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    /// Waits for the answer, which must be good.
    pub(crate) async fn succeeds(mut self) {
        let answer = self.task.join_next().await.expect("it runs");
        let answer = answer.expect("it does not panic").expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    }
}

/// Waits until `runtime` has so many requests.
pub(crate) async fn wait_until_running(runtime: &BulkRuntime, count: u32) {
    let running = async || runtime.running();
    let is_so = |running: &u32| *running == count;
    wait_for("requests at the runtime", PATIENCE, running, is_so).await;
}
