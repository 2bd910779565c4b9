//! Serves the coordinator's requests in one tunnel.

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ollama_coordinator_common::protocol::tunnel::{
    CONNECTION_WINDOW, MAX_HEADERS, MAX_STREAMS, PING_EVERY, PING_TIMEOUT, REQUEST_WINDOW,
    SEND_BUFFER,
};
use tokio_util::sync::CancellationToken;

use super::forward::Forward;

/// Serves until the connection ends; from `retire` on only what runs already.
pub(super) async fn carry(
    tunnel: Upgraded,
    forward: Forward,
    retire: CancellationToken,
) -> Result<(), hyper::Error> {
    let service = service_fn(move |request| forward.clone().pass(request));
    let mut connection = std::pin::pin!(server().serve_connection(tunnel, service));
    tokio::select! {
        biased;
        ended = connection.as_mut() => return ended,
        () = retire.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

fn server() -> http2::Builder<TokioExecutor> {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(REQUEST_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        // The peer is the coordinator: cancelling many requests at once is its right.
        .max_pending_accept_reset_streams(MAX_STREAMS as usize)
        .max_local_error_reset_streams(None)
        .auto_date_header(false);
    server
}
