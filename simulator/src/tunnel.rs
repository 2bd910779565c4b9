//! The agent's end of a tunnel, which does what it is told.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ollama_coordinator_common::protocol::tunnel::{
    CONNECTION_WINDOW, MAX_STREAMS, PROTOCOL, REQUEST_WINDOW,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A tunnel; dropping it cuts it.
#[derive(Debug)]
pub struct SimulatedTunnel {
    connection: JoinSet<()>,
}

/// What becomes of requests that arrive.
#[derive(Debug, Clone, Copy)]
pub enum Bearer {
    /// They go to a runtime.
    Runtime(SocketAddr),
    /// They go to a runtime, one at a time.
    OneAtATime(SocketAddr),
    /// They are refused, as when no runtime can be connected to.
    Refuses,
    /// Nothing.
    Silent,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The coordinator refused it.
    #[error("the tunnel was refused with {0}")]
    Refused(StatusCode),
    /// The connection could not be made or broke.
    #[error("the tunnel could not be opened")]
    Broken(#[source] BoxError),
}

impl SimulatedTunnel {
    /// Opens the tunnel of the agent whose path (`/api/agents/{id}`), session and secret these are.
    ///
    /// # Errors
    /// It was refused, or nobody is there.
    pub async fn open(
        coordinator: SocketAddr,
        path: &str,
        session: &str,
        secret: &str,
        bearer: Bearer,
    ) -> Result<Self, TunnelError> {
        let broken = |error: BoxError| TunnelError::Broken(error);
        let ask = Request::get(format!("{path}/tunnel?session={session}"))
            .header(header::HOST, coordinator.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {secret}"))
            .header(header::CONNECTION, HeaderValue::from_static("upgrade"))
            .header(header::UPGRADE, HeaderValue::from_static(PROTOCOL))
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(error.into()))?;
        let stream = TcpStream::connect(coordinator)
            .await
            .map_err(|error| broken(error.into()))?;
        stream
            .set_nodelay(true)
            .map_err(|error| broken(error.into()))?;
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(error.into()))?;
        let mut connection = JoinSet::new();
        connection.spawn(async move { drop(driver.with_upgrades().await) });
        let answer = sender.send_request(ask).await;
        let answer = answer.map_err(|error| broken(error.into()))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(TunnelError::Refused(answer.status()));
        }
        let upgraded = hyper::upgrade::on(answer)
            .await
            .map_err(|error| broken(error.into()))?;
        let streams = match bearer {
            Bearer::OneAtATime(_) => 1,
            Bearer::Runtime(_) | Bearer::Refuses | Bearer::Silent => MAX_STREAMS,
        };
        connection.spawn(async move {
            let service = service_fn(move |request| answer_one(request, bearer));
            let served = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(streams)
                .initial_stream_window_size(REQUEST_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .serve_connection(upgraded, service)
                .await;
            drop(served);
        });
        Ok(Self { connection })
    }

    /// Resolves when the coordinator has ended the tunnel.
    pub async fn ended(mut self) {
        while self.connection.join_next().await.is_some() {}
    }
}

async fn answer_one(
    request: Request<Incoming>,
    bearer: Bearer,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, BoxError> {
    let runtime = match bearer {
        Bearer::Runtime(runtime) | Bearer::OneAtATime(runtime) => runtime,
        Bearer::Refuses => return Err(h2::Error::from(h2::Reason::REFUSED_STREAM).into()),
        Bearer::Silent => std::future::pending().await,
    };
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse()?;
    head.version = http::Version::HTTP_11;
    let host = HeaderValue::from_str(&runtime.to_string())?;
    head.headers.insert(header::HOST, host);
    let stream = TcpStream::connect(runtime).await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(async move { drop(driver.await) });
    let answer = sender.send_request(Request::from_parts(head, body)).await?;
    Ok(answer.map(BodyExt::boxed))
}
