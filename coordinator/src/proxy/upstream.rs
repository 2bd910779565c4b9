//! The one client that carries model traffic, whatever kind of link leads to an agent.

use std::time::Duration;

use axum::http::{Request, Response, Uri};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::registry::agent::Link;

/// How long a connection to an agent may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long an idle connection to an agent is kept.
const POOL_IDLE: Duration = Duration::from_mins(1);
/// How long the head of an answer may take: a cold model is loaded from disk first.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_mins(10);
/// How long a stream may pause between two chunks.
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// An answer whose body is still arriving.
pub type UpstreamResponse = Response<Incoming>;

/// A pool of connections to agents.
#[derive(Debug, Clone)]
pub struct UpstreamClient {
    direct: Client<HttpConnector, Full<Bytes>>,
}

impl Default for UpstreamClient {
    fn default() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let direct = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(connector);
        Self { direct }
    }
}

impl UpstreamClient {
    /// Sends a request over `link`; its URI needs only a path and query.
    pub async fn send(
        &self,
        link: Link,
        mut request: Request<Full<Bytes>>,
    ) -> Result<UpstreamResponse, Error> {
        match link {
            Link::Direct(endpoint) => {
                let path = request
                    .uri()
                    .path_and_query()
                    .map_or("/", |path| path.as_str());
                let uri = Uri::builder()
                    .scheme("http")
                    .authority(endpoint.to_string());
                *request.uri_mut() = uri
                    .path_and_query(path)
                    .build()
                    .expect("an endpoint and a path make a URI");
                self.direct.request(request).await
            }
        }
    }
}
