//! A tunnel seen from the coordinator, and bodies that come as the test sends them.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::upgrade::Upgraded;
use ollama_coordinator_common::protocol::tunnel::{ANSWER_WINDOW, CONNECTION_WINDOW};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::DEADLINE;

/// A tunnel that an agent has opened; dropped, it is cut.
#[derive(Debug)]
pub(crate) struct TestTunnel {
    pub(crate) sender: SendRequest<Body>,
    connection: JoinSet<()>,
    parts: Parts,
}

/// What HTTP/2 runs on the side; ends with the last handle.
#[derive(Debug, Clone, Default)]
struct Parts(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Parts {
    fn execute(&self, part: F) {
        self.0.lock().spawn(part);
    }
}

impl Drop for TestTunnel {
    fn drop(&mut self) {
        self.parts.0.lock().abort_all();
    }
}

impl TestTunnel {
    pub(crate) async fn begin(upgraded: Upgraded) -> Self {
        let parts = Parts::default();
        let (sender, running) = http2::Builder::new(parts.clone())
            .initial_stream_window_size(ANSWER_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(upgraded)
            .await
            .unwrap();
        let mut connection = JoinSet::new();
        connection.spawn(async {
            // How it ends is seen by the requests in it.
            drop(running.await);
        });
        Self {
            sender,
            connection,
            parts,
        }
    }

    /// Sends a request without a body.
    pub(crate) async fn get(&mut self, path: &str) -> http::Response<Incoming> {
        let request = http::Request::get(format!("http://any.example{path}"));
        self.send(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    pub(crate) async fn send(
        &mut self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Incoming>, hyper::Error> {
        in_time(self.sender.send_request(request)).await
    }

    /// Waits until the agent has closed it.
    pub(crate) async fn closed(mut self) {
        in_time(self.connection.join_next()).await;
    }
}

/// Returns what a reset stream was reset with.
pub(crate) fn reason(error: &hyper::Error) -> Option<h2::Reason> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(reset) = error.downcast_ref::<h2::Error>() {
            return reset.reason();
        }
        cause = error.source();
    }
    None
}

/// Returns a body and what fills it.
pub(crate) fn body() -> (mpsc::Sender<&'static str>, Body) {
    let (sender, receiver) = mpsc::channel(16);
    let chunks = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<_>| {
        let chunk: &str = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), receiver))
    });
    (sender, Body::from_stream(chunks))
}

/// Returns the next piece of a body as text; `None` at its end.
pub(crate) async fn next(body: &mut Incoming) -> Option<Result<String, hyper::Error>> {
    loop {
        let frame = match in_time(body.frame()).await? {
            Ok(frame) => frame.into_data().expect("it is data"),
            Err(error) => return Some(Err(error)),
        };
        if !frame.is_empty() {
            return Some(Ok(String::from_utf8(frame.to_vec()).unwrap()));
        }
    }
}

/// Returns a whole body as text.
pub(crate) async fn text(body: Incoming) -> String {
    let whole = in_time(body.collect()).await.unwrap().to_bytes();
    String::from_utf8(whole.to_vec()).unwrap()
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.expect("it is done in time")
}
