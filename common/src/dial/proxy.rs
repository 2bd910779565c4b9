//! Which proxy leads to a server, and how it is asked to.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Dialled, Proxies, dial};
use crate::base_url::BaseUrl;
use crate::http::HttpError;

/// The most bytes of the head of a proxy's answer.
const LARGEST_ANSWER: usize = 16 * 1024;
const DEFAULT_PORT: u16 = 80;
/// Ends of names that only the local network knows.
const LOCAL_ENDS: [&str; 3] = [".local", ".localhost", ".home.arpa"];

/// Why a proxy does not lead to the server.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Only HTTP proxies that are reached without TLS can be used.
    #[error("proxies of this kind are not supported, only http://")]
    Unsupported,
    /// There is no connection to the proxy itself.
    #[error("it cannot be reached")]
    Unreachable(#[source] Box<HttpError>),
    /// It does not let this connection through.
    #[error("it refuses the connection with status {0}{hint}", hint = hint(*.0))]
    Refused(StatusCode),
    /// It does not speak HTTP as it should, or hung up.
    #[error("the HTTP exchange with it failed")]
    Exchange(#[source] hyper::Error),
    /// It said something in the server's place.
    #[error("it spoke in the server's place")]
    OutOfTurn,
}

fn hint(status: StatusCode) -> &'static str {
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        " (does its URL lack a user name and password?)"
    } else {
        ""
    }
}

/// The proxy that leads to a server.
pub(super) struct Chosen {
    pub(super) proxy: Intercept,
    /// The environment variable that names it.
    pub(super) variable: &'static str,
}

/// Returns the proxy that leads to a server, or `None` when it is reached directly.
pub(super) fn choose(proxies: &Proxies, server: &BaseUrl) -> Option<Chosen> {
    if is_near(&server.host) {
        return None;
    }
    let variables = proxies.variables;
    let schemes = [("https", variables.https), ("http", variables.http)];
    schemes.into_iter().find_map(|(scheme, variable)| {
        let uri = format!("{scheme}://{}:{}/", server.host, server.port);
        let proxy = proxies.matcher.intercept(&uri.parse().ok()?)?;
        Some(Chosen { proxy, variable })
    })
}

/// Returns whether a host is on this machine or this network, which a proxy does not lead to.
fn is_near(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && second & 0xc0 == 0x40;
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
        }
        Err(_is_a_name) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            !name.contains('.') || LOCAL_ENDS.iter().any(|end| name.ends_with(end))
        }
    }
}

/// Returns a proxy's URL; its credentials were taken out when it was read.
pub(super) fn shown(proxy: &Uri) -> String {
    proxy.to_string().trim_end_matches('/').to_owned()
}

/// Connects to the proxy and has it connect to the server.
pub(super) async fn connect(
    proxy: &Intercept,
    server: &BaseUrl,
    within: Duration,
) -> Result<Dialled, ProxyError> {
    let uri = proxy.uri();
    let host = uri
        .host()
        .filter(|_| uri.scheme_str() == Some("http"))
        .ok_or(ProxyError::Unsupported)?;
    let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
    let dialled = dial(host, port, within).await;
    let Dialled { stream, ends } = dialled.map_err(|e| ProxyError::Unreachable(e.into()))?;
    let stream = ask(stream, proxy, server).await?;
    Ok(Dialled { stream, ends })
}

async fn ask(
    stream: TcpStream,
    proxy: &Intercept,
    server: &BaseUrl,
) -> Result<TcpStream, ProxyError> {
    let authority = format!("{}:{}", server.host, server.port);
    let mut request = Request::connect(&authority).header(HOST, &authority);
    if let Some(credentials) = proxy.basic_auth() {
        request = request.header(PROXY_AUTHORIZATION, credentials);
    }
    let request = request
        .body(Empty::<Bytes>::new())
        .expect("host and port of a URL are an authority");
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(LARGEST_ANSWER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(ProxyError::Exchange)?;
    let answer = async {
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(ProxyError::Exchange)?;
        if !answer.status().is_success() {
            return Err(ProxyError::Refused(answer.status()));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded.map_err(ProxyError::Exchange)
    };
    let driver = async {
        connection
            .with_upgrades()
            .await
            .map_err(ProxyError::Exchange)
    };
    let (upgraded, ()) = tokio::try_join!(answer, driver)?;
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .expect("it is the stream that was handed in");
    if parts.read_buf.is_empty() {
        Ok(parts.io.into_inner())
    } else {
        Err(ProxyError::OutOfTurn)
    }
}
