//! A client that shows every frame of an answer and hangs up when dropped.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// One answer on a connection of its own.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    _connection: JoinSet<()>,
}

impl Answer {
    pub(crate) fn content_type(&self) -> &str {
        self.headers["content-type"].to_str().expect("it is text")
    }

    /// Returns the next frame of the body; `None` at its end.
    pub(crate) async fn next_frame(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        let frame = self.body.frame().await.transpose()?;
        Ok(frame.map(|frame| frame.into_data().expect("no trailers are sent")))
    }

    /// Reads until the end or a failure, whichever comes.
    pub(crate) async fn read_all(&mut self) -> (Vec<u8>, Option<hyper::Error>) {
        let mut bytes = Vec::new();
        loop {
            match self.next_frame().await {
                Ok(Some(frame)) => bytes.extend_from_slice(&frame),
                Ok(None) => return (bytes, None),
                Err(error) => return (bytes, Some(error)),
            }
        }
    }

    /// Reads the whole body, which must be complete.
    pub(crate) async fn text(&mut self) -> String {
        let (bytes, error) = self.read_all().await;
        assert!(error.is_none(), "{error:?} after {bytes:?}");
        String::from_utf8(bytes).expect("the body is text")
    }

    /// Reads the whole body as one JSON value.
    pub(crate) async fn json(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).expect("the body is JSON")
    }

    /// Reads the whole body as NDJSON.
    pub(crate) async fn lines(&mut self) -> Vec<Value> {
        let text = self.text().await;
        text.lines()
            .map(|line| serde_json::from_str(line).expect("each line is JSON"))
            .collect()
    }
}

/// Posts JSON over a fresh connection.
pub(crate) async fn post(addr: SocketAddr, path: &str, body: Value) -> Answer {
    send(addr, Method::POST, path, &body.to_string())
        .await
        .expect("the runtime answers")
}

/// Gets a path over a fresh connection.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> Answer {
    send(addr, Method::GET, path, "")
        .await
        .expect("the runtime answers")
}

/// Sends one request over a fresh connection.
pub(crate) async fn send(
    addr: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
) -> io::Result<Answer> {
    send_with(addr, method, path, &[], body.as_bytes()).await
}

/// Sends one request with headers over a fresh connection.
pub(crate) async fn send_with(
    addr: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let mut connection = JoinSet::new();
    connection.spawn(async move { drop(driver.await) });
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", addr.to_string());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request
        .body(Full::new(Bytes::copy_from_slice(body)))
        .expect("the request is well-formed");
    let response = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    let (head, body) = response.into_parts();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        _connection: connection,
    })
}

/// Returns the kind of the I/O error at the root of `error`.
pub(crate) fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && io.get_ref().is_none()
        {
            return Some(io.kind());
        }
        next = match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
        {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
