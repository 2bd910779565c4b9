//! Passes requests on to the runtime, and nowhere else: bytes as they come, both ways.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ollama_coordinator_common::base_url::BaseUrl;

use crate::error_chain;
use crate::status::writer::StatusWriter;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How much of an answer is read ahead of who takes it; its head has to fit.
const READ_AHEAD: usize = 64 * 1024;
/// The most headers of an answer; hyper's own limit of 100 is too low for some.
const MAX_HEADERS: usize = 256;
/// Shorter than any known runtime keeps an idle connection, so that none is used while it closes.
const IDLE_FOR: Duration = Duration::from_secs(4);

/// A handle to the connections to the runtime.
#[derive(Debug, Clone)]
pub(super) struct Forward(Arc<Runtime>);

#[derive(Debug)]
struct Runtime {
    client: Client<HttpConnector, Incoming>,
    authority: Authority,
    host: HeaderValue,
    prefix: String,
    running: Arc<()>,
    status: StatusWriter,
}

impl Forward {
    /// Makes a handle; nothing is dialled yet.
    pub(super) fn new(runtime: &BaseUrl, status: StatusWriter) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_FOR)
            .http1_max_buf_size(READ_AHEAD)
            .http1_max_headers(MAX_HEADERS)
            .build(connector);
        let authority = format!("{}:{}", runtime.host(), runtime.port());
        Self(Arc::new(Runtime {
            client,
            host: HeaderValue::try_from(&authority).expect("host and port of a URL are text"),
            authority: Authority::try_from(authority).expect("host and port are an authority"),
            prefix: runtime.prefix().to_owned(),
            running: Arc::new(()),
            status,
        }))
    }

    /// Returns how many requests run.
    pub(super) fn running(&self) -> usize {
        Arc::strong_count(&self.0.running) - 1
    }

    /// Sends a request to the runtime and returns the head of its answer, which carries the rest.
    ///
    /// # Errors
    /// How the stream is to be reset: refused, if nothing has reached the runtime.
    pub(super) async fn pass(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Carried>, h2::Error> {
        let running = Running::begin(&self.0);
        let request = self.0.addressed(request)?;
        let answer = self.0.client.request(request).await;
        let mut answer = answer.map_err(|error| {
            let reason = if error.is_connect() {
                Reason::REFUSED_STREAM
            } else {
                Reason::INTERNAL_ERROR
            };
            tracing::debug!(error = error_chain(&error), "The runtime did not answer");
            reason
        })?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Reason::INTERNAL_ERROR.into());
        }
        super::headers::strip(answer.headers_mut());
        *answer.version_mut() = Version::HTTP_2;
        Ok(answer.map(|body| Carried {
            body,
            _running: running,
        }))
    }
}

impl Runtime {
    /// Turns a request to whatever host into one to the runtime.
    fn addressed(&self, request: Request<Incoming>) -> Result<Request<Incoming>, Reason> {
        let (mut head, body) = request.into_parts();
        if head.method == Method::CONNECT {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let asked = std::mem::take(&mut head.uri).into_parts().path_and_query;
        let asked = asked.ok_or(Reason::PROTOCOL_ERROR)?;
        let path = if self.prefix.is_empty() {
            asked
        } else {
            let path = PathAndQuery::try_from(format!("{}{asked}", self.prefix));
            path.map_err(|_unusable| Reason::PROTOCOL_ERROR)?
        };
        head.uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(path)
            .build()
            .map_err(|_unusable| Reason::PROTOCOL_ERROR)?;
        head.version = Version::HTTP_11;
        super::headers::strip(&mut head.headers);
        head.headers.insert(HOST, self.host.clone());
        Ok(Request::from_parts(head, body))
    }
}

/// One request that runs, as the status shows; clones of what is counted.
#[derive(Debug)]
struct Running {
    _counted: Arc<()>,
    status: StatusWriter,
}

impl Running {
    fn begin(runtime: &Runtime) -> Self {
        runtime.status.request_began();
        Self {
            _counted: Arc::clone(&runtime.running),
            status: runtime.status.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.status.request_ended();
    }
}

/// The body of an answer on its way.
#[derive(Debug)]
pub(super) struct Carried {
    body: Incoming,
    _running: Running,
}

impl Body for Carried {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
