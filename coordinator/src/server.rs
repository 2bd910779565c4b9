//! The accept loop: every connection is bounded in number, in time for its head, in patience with
//! a reader that takes nothing, and in its end.
//!
//! `axum::serve` keeps a half-sent request head open for ever, so connections are served on hyper.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1::UpgradeableConnection;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::api;
use crate::api::address::Peer;
use crate::dashboard;
use crate::proxy::Proxy;
use crate::proxy::body::ProxyBody;
use crate::stall::StallGuard;

/// How long the first request head of a connection may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may then be idle: longer than the longest heartbeat interval, so that
/// agents need not dial for each heartbeat.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long a client may take nothing of what is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// How many connections are served at once; further ones wait in the system's queue.
const MAX_CONNECTIONS: usize = 100_000;
/// How long to wait when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Limits of a server; the defaults are for production.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// How long the first request head of a connection may take to arrive.
    pub head_timeout: Duration,
    /// How long it may take until the head of a further request has arrived.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// How many connections are served at once.
    pub max_connections: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            max_connections: MAX_CONNECTIONS,
        }
    }
}

/// What answers: the dashboard for browsers, the management API below its paths, the proxy anywhere
/// else.
#[derive(Clone)]
pub struct Frontend {
    /// The management API.
    pub api: Router,
    /// The model APIs: the hot path, so nothing stands between it and the connection.
    pub proxy: Proxy,
}

impl Frontend {
    async fn answer(
        self,
        mut request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Response<ProxyBody>, Infallible> {
        if dashboard::owns(&request) {
            return Ok(dashboard::answer(&request));
        }
        if !api::owns(request.uri().path()) {
            return Ok(self.proxy.serve(request, peer).await);
        }
        request.extensions_mut().insert(peer);
        // Boxed, so that the future of the hot path is small.
        let answer = Box::pin(self.api.oneshot(request.map(Body::new))).await?;
        Ok(answer.map(ProxyBody::Other))
    }
}

/// Accepts and serves connections until `stop`; then lets requests finish until `force`.
pub async fn serve(
    listener: TcpListener,
    frontend: Frontend,
    limits: ServerLimits,
    stop: CancellationToken,
    force: CancellationToken,
) -> Result<(), Infallible> {
    let connections = Arc::new(Semaphore::new(limits.max_connections));
    let served = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
        };
        let Some((stream, remote, permit)) = accepted else {
            continue;
        };
        let Some(peer) = prepare(&stream, remote) else {
            continue;
        };
        let stream = StallGuard::new(stream, limits.write_timeout);
        let frontend = frontend.clone();
        let asked = CancellationToken::new();
        let silent = silent_for(limits.head_timeout, asked.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            asked.cancel();
            frontend.clone().answer(request, peer)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle_timeout)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let (stop, force) = (stop.clone(), force.clone());
        served.spawn(async move {
            tokio::select! {
                ended = until_stopped(connection, &stop) => {
                    if let Err(error) = ended {
                        tracing::debug!(peer.addr = %remote, %error, "Connection ended early");
                    }
                }
                () = silent => tracing::debug!(peer.addr = %remote, "Connection asked for nothing"),
                () = force.cancelled() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    served.close();
    tokio::select! {
        () = served.wait() => {}
        () = force.cancelled() => {}
    }
    Ok(())
}

/// Serves a connection to its end; after `stop`, to the end of the request it is at.
async fn until_stopped<S>(
    connection: UpgradeableConnection<TokioIo<StallGuard<TcpStream>>, S>,
    stop: &CancellationToken,
) -> hyper::Result<()>
where
    S: HttpService<Incoming, ResBody = ProxyBody, Error = Infallible>,
    S::Future: Send,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

/// Resolves when no request has come within `head_timeout`.
async fn silent_for(head_timeout: Duration, asked: CancellationToken) {
    if tokio::time::timeout(head_timeout, asked.cancelled())
        .await
        .is_ok()
    {
        std::future::pending::<()>().await;
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(connections).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, remote)) => Some((stream, remote, permit)),
        Err(error) => {
            if !is_of_one_connection(&error) {
                tracing::warn!(%error, "Accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn prepare(stream: &TcpStream, remote: SocketAddr) -> Option<Peer> {
    let local = stream.local_addr().ok()?;
    stream.set_nodelay(true).ok()?;
    Some(Peer { remote, local })
}
