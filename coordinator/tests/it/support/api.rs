//! A caller of a coordinator that shows every header and every frame of an answer.

use std::error::Error;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ollama_coordinator_common::protocol::view::AgentView;
use ollama_simulator::wait::{PATIENCE, wait_for};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What may go wrong on the way.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Where a coordinator answers. Each call has a connection of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Api {
    addr: SocketAddr,
}

impl Api {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self { addr }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, "")).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(request(Method::DELETE, path, "")).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(request(Method::POST, path, body.to_string()))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(request(Method::PATCH, path, body.to_string()))
            .await
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let what = format!("{} {}", request.method(), request.uri());
        let sent = self.try_send(request).await;
        sent.unwrap_or_else(|error| panic_at(&what, &*error))
    }

    pub(crate) async fn try_send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Answer, BoxError> {
        let stream = TcpStream::connect(self.addr).await?;
        stream.set_nodelay(true)?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        let mut connection = JoinSet::new();
        connection.spawn(async move { drop(driver.await) });
        let host = HeaderValue::from_str(&self.addr.to_string())?;
        request.headers_mut().entry(header::HOST).or_insert(host);
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
            _connection: connection,
        })
    }

    /// Lists the agents.
    pub(crate) async fn agents(&self) -> Vec<AgentView> {
        self.get("/api/agents").await.parsed().await
    }

    /// Shows one agent, which must be known.
    pub(crate) async fn agent(&self, id: impl ToString) -> AgentView {
        let path = format!("/api/agents/{}", id.to_string());
        self.get(&path).await.parsed().await
    }

    /// Waits until the agent is as `expected`.
    pub(crate) async fn wait_for_agent(
        &self,
        id: impl ToString,
        what: &str,
        expected: impl Fn(&AgentView) -> bool,
    ) -> AgentView {
        let id = id.to_string();
        wait_for(what, PATIENCE, || self.agent(&id), expected).await
    }

    /// Waits until the agent gets requests.
    pub(crate) async fn wait_until_routable(&self, id: impl ToString) -> AgentView {
        self.wait_for_agent(id, "routable", |agent| agent.routable)
            .await
    }
}

/// Makes a request with a JSON body; one without a body has no content type.
pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let body = body.into();
    let mut request = Request::builder().method(method).uri(path);
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request.body(Full::new(body)).expect("it is well-formed")
}

#[expect(
    clippy::panic,
    reason = "a test whose coordinator does not answer has failed"
)]
pub(crate) fn panic_at(what: &str, error: &(dyn Error + 'static)) -> ! {
    panic!("{what}: {error:?}")
}

/// One answer; dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    _connection: JoinSet<()>,
}

impl Answer {
    /// Returns a header's text; an absent one is empty.
    pub(crate) fn header(&self, name: impl header::AsHeaderName) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().expect("it is text"))
    }

    /// Returns the next frame of the body; `None` at its end.
    pub(crate) async fn next_frame(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        let frame = self.body.frame().await.transpose()?;
        Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    /// Reads until the end or a failure, whichever comes.
    pub(crate) async fn read_all(&mut self) -> (String, Option<hyper::Error>) {
        let mut bytes = Vec::new();
        let error = loop {
            match self.next_frame().await {
                Ok(Some(frame)) => bytes.extend_from_slice(&frame),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        (String::from_utf8(bytes).expect("the body is text"), error)
    }

    /// Reads the body, which must be complete.
    pub(crate) async fn text(&mut self) -> String {
        let (text, error) = self.read_all().await;
        assert!(error.is_none(), "{error:?} after {text}");
        text
    }

    /// Reads the body as a JSON value.
    pub(crate) async fn json(&mut self) -> Value {
        self.parsed().await
    }

    /// Reads the body as JSON of a known shape.
    pub(crate) async fn parsed<T: DeserializeOwned>(&mut self) -> T {
        let text = self.text().await;
        let parsed = serde_json::from_str(&text);
        parsed.unwrap_or_else(|error| panic_at(&format!("{} {text}", self.status), &error))
    }

    /// Reads the code of a problem after checking that it is one, with this status.
    pub(crate) async fn problem(&mut self, status: u16) -> Value {
        let body = self.json().await;
        assert_eq!(self.status.as_u16(), status, "{body}");
        assert_eq!(
            self.header(header::CONTENT_TYPE),
            "application/problem+json"
        );
        assert_eq!(body["status"], status, "{body}");
        body
    }
}
