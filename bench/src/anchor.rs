//! What a request costs at the very least: axum with one handler that does nothing, served as the
//! coordinator serves; and the file recipe of a durable change with nothing around it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::post;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::ServiceExt as _;

/// Serves `POST /api/agents/{id}/heartbeat` with 204 and nothing else, for ever.
pub(crate) async fn serve(addr: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(addr).await;
    let listener = listener.context("cannot listen for the anchor")?;
    let router = Router::new().route(
        "/api/agents/{id}/heartbeat",
        post(|| async { StatusCode::NO_CONTENT }),
    );
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            router.clone().oneshot(request.map(Body::new))
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        while connections.try_join_next().is_some() {}
    }
}

/// Replaces `dir/bare` durably by `bytes`: temporary file, fsync, rename, fsync of the directory.
pub(crate) fn replace_file(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join("bare.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, dir.join("bare"))?;
    File::open(dir)?.sync_all()
}
