//! Makes connections to a server: directly, or through the HTTP proxy that the environment names.
//!
//! A proxy only passes bytes on (`CONNECT`): it need not understand what is said.

mod proxy;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::proxy::matcher::Matcher;
use tokio::net::{TcpStream, lookup_host};

use crate::base_url::BaseUrl;
use crate::http::HttpError;

pub use self::proxy::ProxyError;

/// How a process makes its connections. The default never uses a proxy.
#[derive(Debug, Clone, Default)]
pub struct Dial {
    proxies: Option<Arc<Proxies>>,
}

#[derive(Debug)]
struct Proxies {
    matcher: Matcher,
    /// The variables that name them.
    variables: Variables,
}

/// The environment variables that name the proxies of both schemes.
#[derive(Debug, Clone, Copy)]
struct Variables {
    https: &'static str,
    http: &'static str,
}

impl Variables {
    fn from_environment() -> Self {
        let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let first = |names: [&'static str; 4]| {
            names
                .into_iter()
                .find(|name| is_set(name))
                .unwrap_or(names[0])
        };
        Self {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
        }
    }
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// Its two ends; the far one is the proxy's, if there is one.
    pub ends: SocketEnds,
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketEnds {
    /// This side.
    pub local: SocketAddr,
    /// The other side.
    pub peer: SocketAddr,
}

impl Dial {
    /// Uses the proxies that `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` name now.
    pub fn from_environment() -> Self {
        Self::through(Matcher::from_env(), Variables::from_environment())
    }

    fn through(matcher: Matcher, variables: Variables) -> Self {
        Self {
            proxies: Some(Arc::new(Proxies { matcher, variables })),
        }
    }

    /// Returns the proxy through which a server is reached, as a URL without credentials.
    pub fn proxy_of(&self, server: &BaseUrl) -> Option<String> {
        self.named_proxy_of(server).map(|(_variable, proxy)| proxy)
    }

    /// Returns the environment variable that names the proxy through which a server is reached, and
    /// the proxy's URL without credentials.
    pub fn named_proxy_of(&self, server: &BaseUrl) -> Option<(&'static str, String)> {
        let chosen = proxy::choose(self.proxies.as_deref()?, server)?;
        Some((chosen.variable, proxy::shown(chosen.proxy.uri())))
    }

    /// Connects to a server within a time.
    ///
    /// # Errors
    /// Names the first layer that broke.
    pub async fn connect(&self, server: &BaseUrl, within: Duration) -> Result<Dialled, HttpError> {
        let proxies = self.proxies.as_deref();
        let dialling = async {
            match proxies.and_then(|proxies| proxy::choose(proxies, server)) {
                Some(proxy::Chosen { proxy, variable }) => proxy::connect(&proxy, server, within)
                    .await
                    .map_err(|source| HttpError::Proxy {
                        proxy: proxy::shown(proxy.uri()),
                        variable,
                        source,
                    }),
                None => dial(&server.host, server.port, within).await,
            }
        };
        let timeout = |_elapsed| HttpError::Timeout {
            stage: "connection",
            after: within,
        };
        tokio::time::timeout(within, dialling)
            .await
            .map_err(timeout)?
    }
}

/// Tries every address of the host; each gets its share of the time, so that one that swallows
/// packets does not keep the others from being tried.
async fn dial(host: &str, port: u16, within: Duration) -> Result<Dialled, HttpError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let resolve = |source| HttpError::Resolve {
        host: host.to_owned(),
        source,
    };
    let addrs = lookup_host((host, port)).await.map_err(resolve)?;
    let addrs: Vec<SocketAddr> = addrs.collect();
    let share = within / u32::try_from(addrs.len().max(1)).unwrap_or(u32::MAX);
    let mut failure = resolve(io::Error::new(io::ErrorKind::NotFound, "no address"));
    for addr in addrs {
        match tokio::time::timeout(share, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return set_up(stream, addr),
            Ok(Err(source)) => failure = HttpError::Connect { addr, source },
            Err(_elapsed) => {
                let source = io::Error::from(io::ErrorKind::TimedOut);
                failure = HttpError::Connect { addr, source };
            }
        }
    }
    Err(failure)
}

fn set_up(stream: TcpStream, addr: SocketAddr) -> Result<Dialled, HttpError> {
    let connect = |source| HttpError::Connect { addr, source };
    stream.set_nodelay(true).map_err(connect)?;
    let local = stream.local_addr().map_err(connect)?;
    Ok(Dialled {
        stream,
        ends: SocketEnds { local, peer: addr },
    })
}

#[cfg(test)]
mod tests;
