//! The connections that agents have dialled to carry requests: HTTP/2 with the roles flipped, so
//! that the coordinator is its client.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hyper::client::conn::http2::{self, Connection, SendRequest};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use ollama_coordinator_common::id::{AgentId, SessionId};
use ollama_coordinator_common::protocol::tunnel::{
    ANSWER_WINDOW, CONNECTION_WINDOW, MAX_HEADERS, MAX_STREAMS, NOT_SENT, PING_EVERY, PING_TIMEOUT,
    SEND_BUFFER,
};
use ollama_coordinator_common::secret::SecretHash;
use parking_lot::RwLock;
use tokio::net::TcpStream;

use super::upstream::RequestBody;
use crate::registry::Registry;
use crate::registry::agent::TunnelId;
use crate::registry::table::TunnelError;
use crate::stall::StallGuard;

type Socket = TokioIo<StallGuard<TcpStream>>;

/// A handle to all tunnels that are up.
#[derive(Clone)]
pub struct Tunnels(Arc<Shared>);

struct Shared {
    registry: Registry,
    last: AtomicU64,
    senders: RwLock<HashMap<TunnelId, SendRequest<RequestBody>>>,
}

/// Why a connection does not become a tunnel.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("the connection was not upgraded")]
    NotUpgraded(#[source] hyper::Error),
    #[error("the agent spoke out of turn")]
    OutOfTurn,
    #[error("the socket cannot be set up")]
    Socket(#[source] std::io::Error),
    #[error("HTTP/2 could not begin")]
    Handshake(#[source] hyper::Error),
}

impl Tunnels {
    /// Makes a handle to no tunnels.
    pub fn new(registry: Registry) -> Self {
        Self(Arc::new(Shared {
            registry,
            last: AtomicU64::new(0),
            senders: RwLock::default(),
        }))
    }

    /// Returns what sends requests through a tunnel, if that is still up.
    pub fn sender(&self, tunnel: TunnelId) -> Option<SendRequest<RequestBody>> {
        self.0.senders.read().get(&tunnel).cloned()
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.0.senders.read().len()
    }

    /// Makes a connection the tunnel of an agent's session, as soon as it is upgraded.
    pub fn open(
        &self,
        (id, session): (AgentId, SessionId),
        secret: Option<SecretHash>,
        upgrade: OnUpgrade,
    ) -> Result<(), TunnelError> {
        self.0.registry.may_open_tunnel(id, secret, session)?;
        let tunnels = self.clone();
        #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
        tokio::spawn(async move {
            match begin(upgrade).await {
                Ok((sender, connection)) => {
                    tunnels.carry((id, session), sender, connection).await;
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(agent.id = %id, error, "Tunnel did not come up");
                }
            }
        });
        Ok(())
    }

    /// Closes a tunnel once the requests in it have ended.
    pub fn close(&self, tunnel: TunnelId) {
        self.0.senders.write().remove(&tunnel);
    }

    async fn carry(
        &self,
        (id, session): (AgentId, SessionId),
        sender: SendRequest<RequestBody>,
        connection: Connection<Socket, RequestBody, TokioExecutor>,
    ) {
        let tunnel = TunnelId(self.0.last.fetch_add(1, Ordering::Relaxed) + 1);
        self.0.senders.write().insert(tunnel, sender);
        if let Some(replaced) = self.0.registry.open_tunnel(id, (tunnel, session)) {
            self.close(replaced);
        }
        tracing::debug!(agent.id = %id, tunnel = tunnel.0, "Tunnel is up");
        if let Err(error) = connection.await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(agent.id = %id, tunnel = tunnel.0, error, "Tunnel broke");
        }
        self.close(tunnel);
        self.0.registry.close_tunnel(id, tunnel);
    }
}

async fn begin(
    upgrade: OnUpgrade,
) -> Result<
    (
        SendRequest<RequestBody>,
        Connection<Socket, RequestBody, TokioExecutor>,
    ),
    BeginError,
> {
    let upgraded = upgrade.await.map_err(BeginError::NotUpgraded)?;
    let socket = socket_of(upgraded)?;
    let begun = client().handshake(socket).await;
    begun.map_err(BeginError::Handshake)
}

fn client() -> http2::Builder<TokioExecutor> {
    let mut client = http2::Builder::new(TokioExecutor::new());
    client
        .timer(TokioTimer::new())
        .initial_stream_window_size(ANSWER_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        // What arrives of answers whose clients have left is no fault of the agent.
        .max_concurrent_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(None);
    client
}

/// Takes the socket itself, so that nothing stands between it and HTTP/2, and has the system
/// notice a dead peer and keep little that is not sent yet, so that no bulk holds up what is urgent.
fn socket_of(upgraded: Upgraded) -> Result<Socket, BeginError> {
    let parts = upgraded
        .downcast::<Socket>()
        .expect("the server serves such sockets");
    if !parts.read_buf.is_empty() {
        return Err(BeginError::OutOfTurn);
    }
    #[cfg(target_os = "linux")]
    set_up(parts.io.inner().stream()).map_err(BeginError::Socket)?;
    Ok(parts.io)
}

#[cfg(target_os = "linux")]
fn set_up(stream: &TcpStream) -> std::io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(PING_EVERY + PING_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(NOT_SENT)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    /// More than HTTP/2 puts up with when it is not told otherwise.
    const MANY: usize = 1_100;
    const PREFACE: usize = 24;
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    /// `:status: 200`.
    const OK: u8 = 0x88;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("it is short");
        let mut frame = vec![0, 0, length, kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    /// Answers each request, and sends another piece of the answer before.
    async fn answer_and_add(mut tunnel: DuplexStream) -> std::io::Result<()> {
        tunnel.read_exact(&mut [0; PREFACE]).await?;
        tunnel.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        let mut ended = None;
        loop {
            let mut head = [0; 9];
            tunnel.read_exact(&mut head).await?;
            let [a, b, c, kind, _flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]);
            tunnel.read_exact(&mut vec![0; length as usize]).await?;
            if kind == HEADERS {
                let stream = u32::from_be_bytes(stream);
                if let Some(ended) = ended.replace(stream) {
                    tunnel.write_all(&frame(DATA, 0, ended, b"late")).await?;
                }
                let whole = END_STREAM | END_HEADERS;
                let answer = frame(HEADERS, whole, stream, &[OK]);
                tunnel.write_all(&answer).await?;
            }
        }
    }

    #[tokio::test]
    async fn tunnel_survives_any_number_of_answers_that_nobody_waits_for() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let begun = client().handshake::<_, RequestBody>(TokioIo::new(near));
        let mut running = tokio::task::JoinSet::new();
        running.spawn(async move { drop(answer_and_add(far).await) });
        let (mut sender, connection) = begun.await.unwrap();
        running.spawn(async move { drop(connection.await) });

        for _ in 0..MANY {
            let mut request = Request::new(RequestBody::Whole(Full::new(Bytes::new())));
            *request.uri_mut() = "http://runtime/".parse().unwrap();
            sender.send_request(request).await.unwrap();
        }
    }
}
