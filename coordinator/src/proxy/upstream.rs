//! The one client that carries traffic to agents, whatever kind of link leads there.
//!
//! An upstream connection has no task of its own: whoever waits for its answer drives it, so that
//! a byte on its way from a runtime to a client wakes one task and not two. A connection whose
//! answer was read to its end goes back to the idle ones; any other one is closed when its body is
//! dropped, which tells the runtime that the client has left.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::body::BoxError;
use super::machines::upload::Upload;
use super::nudge::Nudge;
use super::tunnels::Tunnels;
use crate::registry::agent::{Link, TunnelId};

/// How long an idle connection to an agent is kept.
const IDLE_FOR: Duration = Duration::from_mins(1);
/// The most headers of an answer; hyper's own limit of 100 is too low for some.
const MAX_HEADERS: usize = 256;
/// The most idle connections that are kept to one agent.
const MAX_IDLE: usize = 256;

/// A client with a pool of connections to agents.
#[derive(Clone)]
pub struct UpstreamClient(Arc<Pool>);

struct Pool {
    connect_timeout: Duration,
    tunnels: Tunnels,
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
}

struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

/// One connection, driven by whoever holds it.
struct Wire {
    addr: SocketAddr,
    host: HeaderValue,
    nudge: Nudge,
    sender: SendRequest<RequestBody>,
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
    is_over: bool,
}

/// What is sent, and whether it may be sent again over a new connection when an idle one turns out
/// closed.
pub enum Sending<'a> {
    /// It may be: this makes the request, each time.
    Repeatable(&'a (dyn Fn() -> Request<RequestBody> + Send + Sync)),
    /// It may not: a connection of its own is made for it.
    Once(Box<Request<RequestBody>>),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection could be made; the agent has seen nothing of the request.
    #[error(transparent)]
    NotConnected(#[from] NotConnected),
    /// The connection broke after the request was sent.
    #[error("the connection broke before an answer began")]
    Broken(#[source] BoxError),
}

/// Why a request has not reached a runtime.
#[derive(Debug, thiserror::Error)]
pub enum NotConnected {
    /// Its address does not take the connection.
    #[error("cannot connect to {0}")]
    Dialled(SocketAddr, #[source] io::Error),
    /// The agent's tunnel is not up.
    #[error("the agent's tunnel is not up")]
    NoTunnel,
    /// The tunnel has gone, or the agent cannot connect to its runtime.
    #[error("the agent did not pass the request on")]
    Refused(#[source] hyper::Error),
}

impl UpstreamClient {
    /// Makes a client that gives up connecting after a while.
    pub fn new(connect_timeout: Duration, tunnels: Tunnels) -> Self {
        Self(Arc::new(Pool {
            connect_timeout,
            tunnels,
            idle: Mutex::default(),
        }))
    }

    /// Sends a request over `link`; its URI needs only a path and query.
    pub async fn send(
        &self,
        link: Link,
        sending: Sending<'_>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        match link {
            Link::Direct(addr) => self.send_to(addr, sending).await,
            // Boxed, so that the future of the usual request is small: it is moved with each one.
            Link::Tunnel(tunnel) => Box::pin(self.send_through(tunnel, sending)).await,
        }
    }

    async fn send_through(
        &self,
        tunnel: Option<TunnelId>,
        sending: Sending<'_>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        let mut request = match sending {
            Sending::Repeatable(make) => make(),
            Sending::Once(request) => *request,
        };
        let sender = tunnel.and_then(|tunnel| self.0.tunnels.sender(tunnel));
        let mut sender = sender.ok_or(NotConnected::NoTunnel)?;
        in_absolute_form(request.uri_mut());
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(header::HOST);
        let answer = sender.send_request(request).await.map_err(|error| {
            if never_arrived(&error) {
                NotConnected::Refused(error).into()
            } else {
                SendError::Broken(error.into())
            }
        })?;
        Ok(answer.map(|incoming| UpstreamBody {
            incoming,
            has_ended: false,
            wire: None,
            client: self.clone(),
        }))
    }

    async fn send_to(
        &self,
        addr: SocketAddr,
        sending: Sending<'_>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        if let Sending::Repeatable(make) = sending
            && let Some(wire) = self.take_idle(addr)
        {
            match self.exchange(wire, make()).await {
                Err(SendError::Broken(_)) => {}
                answered => return answered,
            }
        }
        let wire = Box::pin(self.connect(addr)).await?;
        let request = match sending {
            Sending::Repeatable(make) => make(),
            Sending::Once(request) => *request,
        };
        self.exchange(wire, request).await
    }

    /// Closes connections that nobody has used for a while, again and again.
    pub async fn close_idle_for_ever(self) {
        let mut ticks = tokio::time::interval(IDLE_FOR / 2);
        loop {
            ticks.tick().await;
            self.close_idle();
        }
    }

    fn close_idle(&self) {
        let now = Instant::now();
        let mut old = Vec::new();
        self.0.idle.lock().retain(|_, idle| {
            let count = idle.partition_point(|idle| now - idle.since > IDLE_FOR);
            old.extend(idle.drain(..count));
            !idle.is_empty()
        });
        // Closed here, without the lock.
        drop(old);
    }

    fn take_idle(&self, addr: SocketAddr) -> Option<Box<Wire>> {
        loop {
            let mut wire = self.0.idle.lock().get_mut(&addr)?.pop()?.wire;
            if wire.is_ready() {
                return Some(wire);
            }
        }
    }

    fn put_back(&self, wire: Box<Wire>) {
        let since = Instant::now();
        let mut pool = self.0.idle.lock();
        let idle = pool.entry(wire.addr).or_default();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { wire, since });
        }
    }

    async fn connect(&self, addr: SocketAddr) -> Result<Box<Wire>, SendError> {
        let failed = |error| NotConnected::Dialled(addr, error);
        let stream = timeout(self.0.connect_timeout, TcpStream::connect(addr))
            .await
            .map_err(|_elapsed| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::Broken(error.into()))?;
        let host = HeaderValue::from_str(&addr.to_string()).expect("an address is a header value");
        Ok(Box::new(Wire {
            addr,
            host,
            nudge: Nudge::default(),
            sender,
            connection,
            is_over: false,
        }))
    }

    async fn exchange(
        &self,
        mut wire: Box<Wire>,
        mut request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendError> {
        in_origin_form(request.uri_mut());
        request
            .headers_mut()
            .insert(header::HOST, wire.host.clone());
        let mut answer = pin!(wire.sender.send_request(request));
        let Wire {
            nudge,
            connection,
            is_over,
            ..
        } = &mut *wire;
        let answer = std::future::poll_fn(|context| {
            nudge.poll(context, |context| {
                if !*is_over {
                    *is_over = Pin::new(&mut *connection).poll(context).is_ready();
                }
                answer.as_mut().poll(context)
            })
        });
        let answer = answer.await.map_err(|e| SendError::Broken(e.into()))?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let error = "it switched to another protocol, which nobody had asked for";
            return Err(SendError::Broken(error.into()));
        }
        Ok(answer.map(|incoming| UpstreamBody {
            incoming,
            has_ended: false,
            wire: Some(wire),
            client: self.clone(),
        }))
    }
}

impl Wire {
    /// Looks whether the connection can take another request.
    fn is_ready(&mut self) -> bool {
        if !self.is_over {
            let context = &mut Context::from_waker(Waker::noop());
            self.is_over = Pin::new(&mut self.connection).poll(context).is_ready();
        }
        !self.is_over && self.sender.is_ready()
    }
}

/// Leaves of a URI what a request line to a server has.
fn in_origin_form(uri: &mut Uri) {
    if uri.scheme().is_some() || uri.authority().is_some() {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        // The path of `http://host?query` is empty.
        let slash = if path.starts_with('/') { "" } else { "/" };
        let origin_form = format!("{slash}{path}");
        *uri = origin_form.parse().expect("a path and query is a URI");
    }
}

/// Adds to a URI what HTTP/2 wants it to have; the agent knows its runtime's name.
fn in_absolute_form(uri: &mut Uri) {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(Authority::from_static("runtime"));
    // The target may be an authority and no path.
    let path = uri.path_and_query().cloned();
    parts.path_and_query = path.or_else(|| Some(PathAndQuery::from_static("/")));
    *uri = Uri::from_parts(parts).expect("a path and query is a URI");
}

/// Returns whether a request that failed in a tunnel has not reached the runtime.
fn never_arrived(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let reason = source
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .and_then(h2::Error::reason);
    error.is_canceled() || reason == Some(h2::Reason::REFUSED_STREAM)
}

/// The body of a request to an agent.
#[derive(Debug)]
pub enum RequestBody {
    /// In memory, so that it can be sent again.
    Whole(Full<Bytes>),
    /// As it comes from the client.
    Passing(Upload),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
            Self::Passing(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Passing(body) => body.size_hint(),
        }
    }
}

/// The body of an agent's answer, with the connection that brings it.
pub struct UpstreamBody {
    incoming: Incoming,
    has_ended: bool,
    wire: Option<Box<Wire>>,
    client: UpstreamClient,
}

impl Body for UpstreamBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self {
            incoming,
            has_ended,
            wire,
            ..
        } = &mut *self;
        let frame = match wire.as_deref_mut() {
            Some(Wire {
                nudge,
                connection,
                is_over,
                ..
            }) => nudge.poll(context, |context| {
                let frame = Pin::new(&mut *incoming).poll_frame(context);
                if frame.is_pending() && !*is_over {
                    *is_over = Pin::new(&mut *connection).poll(context).is_ready();
                    return Pin::new(&mut *incoming).poll_frame(context);
                }
                frame
            }),
            None => Pin::new(incoming).poll_frame(context),
        };
        *has_ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        let Some(mut wire) = self.wire.take() else {
            return;
        };
        if self.is_end_stream() && wire.is_ready() {
            self.client.put_back(wire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("/api/chat?a=1", "/api/chat?a=1")]
    #[case("http://host/api/chat?a=1", "/api/chat?a=1")]
    #[case("http://host", "/")]
    #[case("http://host?a=1", "/?a=1")]
    fn request_line_to_an_agent_has_a_path_and_no_host(#[case] uri: &str, #[case] expected: &str) {
        let mut uri: Uri = uri.parse().unwrap();

        in_origin_form(&mut uri);

        assert_eq!(uri, expected);
    }

    #[rstest]
    #[case("/api/chat?a=1", "http://runtime/api/chat?a=1")]
    #[case("//a/%2F?%20", "http://runtime//a/%2F?%20")]
    #[case("http://host?a=1", "http://runtime/?a=1")]
    #[case("host:80", "http://runtime/")]
    fn request_in_a_tunnel_has_a_path_whatever_the_client_asked_for(
        #[case] uri: &str,
        #[case] expected: &str,
    ) {
        let mut uri: Uri = uri.parse().unwrap();

        in_absolute_form(&mut uri);

        assert_eq!(uri, expected);
    }
}
