//! One HTTP/1.1 control connection: kept alive, bounded, and honest about what broke.
//!
//! Heartbeats, registrations, probes and the command line use this; streamed model traffic does
//! not. A connection carries one request at a time. It never follows redirects, and uses a
//! proxy only when it is given a way to dial that does.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base_url::BaseUrl;
use crate::dial::{Dial, Dialled, ProxyError, SocketEnds};

/// The most bytes of an answer that are read, unless a client is made for larger ones.
const ANSWER_LIMIT: usize = 1024 * 1024;
const AGENT_NAME: &str = concat!("ollama-coordinator/", env!("CARGO_PKG_VERSION"));

/// The first layer that broke.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The name could not be resolved.
    #[error("the name `{host}` could not be resolved")]
    Resolve {
        /// The host asked for.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No TCP connection could be made.
    #[error("connecting to {addr} failed")]
    Connect {
        /// The last address tried.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The proxy that the environment names does not lead to the server.
    #[error("the proxy {proxy} ({variable}) cannot be used")]
    Proxy {
        /// Its URL, without credentials.
        proxy: String,
        /// The environment variable that names it.
        variable: &'static str,
        /// Why not.
        #[source]
        source: ProxyError,
    },
    /// The time for connecting or for the answer ran out.
    #[error("no {stage} within {} ms", .after.as_millis())]
    Timeout {
        /// `connection` or `answer`.
        stage: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The other side does not speak HTTP as it should, or hung up.
    #[error("the HTTP exchange failed")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is larger than this client reads.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The most bytes that are read.
        limit: usize,
    },
    /// The answer is not the JSON that was expected.
    #[error("the answer (status {status}) is not the expected JSON")]
    UnexpectedBody {
        /// Its HTTP status.
        status: StatusCode,
        /// Where the JSON departs from what was expected.
        #[source]
        source: serde_json::Error,
    },
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct HttpResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl HttpResponse {
    /// Reads the body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, HttpError> {
        serde_json::from_slice(&self.body).map_err(|source| HttpError::UnexpectedBody {
            status: self.status,
            source,
        })
    }
}

/// Limits in time for one exchange.
#[derive(Debug, Clone, Copy)]
pub struct HttpTimeouts {
    /// For resolving and connecting.
    pub connect: Duration,
    /// From sending the request to the end of the answer.
    pub answer: Duration,
}

/// A client of one server over one connection at a time.
#[derive(Debug)]
pub struct HttpClient {
    base: BaseUrl,
    dial: Dial,
    timeouts: HttpTimeouts,
    answer_limit: usize,
    headers: HeaderMap,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    ends: SocketEnds,
    used: bool,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl HttpClient {
    /// Makes a client of answers up to 1 MiB; nothing is dialled yet.
    pub fn new(base: BaseUrl, timeouts: HttpTimeouts) -> Self {
        Self {
            base,
            dial: Dial::default(),
            timeouts,
            answer_limit: ANSWER_LIMIT,
            headers: HeaderMap::new(),
            connection: None,
        }
    }

    /// Makes it read answers of up to `bytes`.
    #[must_use]
    pub fn with_answer_limit(mut self, bytes: usize) -> Self {
        self.answer_limit = bytes;
        self
    }

    /// Makes it send a header with every request.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Makes it connect by `dial`.
    #[must_use]
    pub fn with_dial(mut self, dial: Dial) -> Self {
        self.dial = dial;
        self
    }

    /// Returns the server's URL.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Connects if there is no usable connection and returns the ends of its socket.
    pub async fn connect(&mut self) -> Result<SocketEnds, HttpError> {
        if self.is_connected()
            && let Some(connection) = &self.connection
        {
            return Ok(connection.ends);
        }
        self.connection = None;
        let dialled = self.dial.connect(&self.base, self.timeouts.connect).await?;
        let connection = open(dialled).await?;
        let ends = connection.ends;
        self.connection = Some(connection);
        Ok(ends)
    }

    /// Returns whether the next request would use a connection that already exists.
    pub fn is_connected(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| !connection.sender.is_closed())
    }

    /// Drops the connection, so that the next request resolves and dials anew.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Changes how long an answer may take from now on.
    pub fn set_answer_timeout(&mut self, answer: Duration) {
        self.timeouts.answer = answer;
    }

    /// Sends a request without a body.
    pub async fn get(&mut self, path: &str) -> Result<HttpResponse, HttpError> {
        self.send(Method::GET, path, None, Bytes::new()).await
    }

    /// Sends `body` as JSON, with `bearer` as the bearer token when there is one.
    pub async fn post_json(
        &mut self,
        path: &str,
        bearer: Option<&str>,
        body: &impl Serialize,
    ) -> Result<HttpResponse, HttpError> {
        let body = serde_json::to_vec(body).map_err(|source| HttpError::Exchange(source.into()))?;
        self.send(Method::POST, path, bearer, body.into()).await
    }

    /// Sends one request and reads the whole answer.
    ///
    /// When a connection that was kept alive turns out to be closed, the request is sent once more
    /// on a fresh one: send only requests that may be repeated.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Bytes,
    ) -> Result<HttpResponse, HttpError> {
        loop {
            self.connect().await?;
            let reused = self
                .connection
                .as_ref()
                .is_some_and(|connection| connection.used);
            let request = self.request(&method, path, bearer, body.clone())?;
            match self.exchange(request).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    self.disconnect();
                    let went_stale = reused && matches!(error, HttpError::Exchange(_));
                    if !went_stale {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        bearer: Option<&str>,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base.prefix))
            .header(HOST, format!("{}:{}", self.base.host, self.base.port))
            .header(USER_AGENT, AGENT_NAME);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        request
            .body(Full::new(body))
            .map_err(|source| HttpError::Exchange(source.into()))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<HttpResponse, HttpError> {
        let after = self.timeouts.answer;
        let limit = self.answer_limit;
        let connection = self
            .connection
            .as_mut()
            .expect("connect() was called before");
        connection.used = true;
        let answer = async {
            connection
                .sender
                .ready()
                .await
                .map_err(|e| HttpError::Exchange(e.into()))?;
            let response = connection.sender.send_request(request).await;
            let (head, body) = response
                .map_err(|e| HttpError::Exchange(e.into()))?
                .into_parts();
            let body = Limited::new(body, limit).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    HttpError::TooLarge { limit }
                } else {
                    HttpError::Exchange(error)
                }
            })?;
            Ok(HttpResponse {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(after, answer)
            .await
            .map_err(|_elapsed| HttpError::Timeout {
                stage: "answer",
                after,
            })?
    }
}

async fn open(dialled: Dialled) -> Result<Connection, HttpError> {
    let Dialled { stream, ends } = dialled;
    let (sender, driver) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| HttpError::Exchange(e.into()))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the connection, which owns it"
    )]
    let driver = tokio::spawn(async move {
        if let Err(error) = driver.await {
            tracing::debug!(%error, "Control connection ended");
        }
    });
    Ok(Connection {
        sender,
        ends,
        used: false,
        driver,
    })
}
