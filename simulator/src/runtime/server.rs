//! Accepts connections, closes the port when the script says so, and speaks HTTP/1.1 on each.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::engine::Engine;
use super::routes;
use super::wire::{BreakableStream, ResetSwitch};
use crate::door::Door;

const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

/// The port of one runtime and its connections.
pub(super) struct Server {
    pub(super) engine: Arc<Engine>,
    pub(super) door: Door,
    /// Whether the port should be open.
    pub(super) wanted: watch::Receiver<bool>,
    /// Whether it is.
    pub(super) is_open: watch::Sender<bool>,
}

impl Server {
    /// Serves until `stopped`, then breaks all connections.
    pub(super) async fn run(mut self, stopped: CancellationToken) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let served = stopped.run_until_cancelled(self.serve_as_wanted(&mut connections));
        match served.await {
            Some(Err(error)) => return Err(error),
            Some(Ok(never)) => match never {},
            None => {}
        }
        self.hang_up(&mut connections).await;
        Ok(())
    }

    async fn serve_as_wanted(&mut self, connections: &mut JoinSet<()>) -> io::Result<Infallible> {
        loop {
            let open = *self.wanted.borrow_and_update();
            self.door.set_open(open)?;
            if !open {
                self.hang_up(connections).await;
            }
            self.is_open.send_replace(open);
            loop {
                tokio::select! {
                    changed = self.wanted.changed() => {
                        if changed.is_err() {
                            std::future::pending::<()>().await;
                        }
                        break;
                    }
                    accepted = self.door.accept() => match accepted {
                        Ok(stream) => {
                            connections.spawn(serve(Arc::clone(&self.engine), stream));
                        }
                        Err(error) => {
                            tracing::warn!(%error, "Simulated runtime could not accept");
                            sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
                        }
                    },
                    Some(ended) = connections.join_next() => log_panic(ended),
                }
            }
        }
    }

    async fn hang_up(&self, connections: &mut JoinSet<()>) {
        let hanging_up = &self.engine.record.is_hanging_up;
        hanging_up.store(true, Ordering::Relaxed);
        connections.shutdown().await;
        hanging_up.store(false, Ordering::Relaxed);
    }
}

async fn serve(engine: Arc<Engine>, stream: TcpStream) {
    let switch = ResetSwitch::default();
    let io = TokioIo::new(BreakableStream::new(stream, switch.clone()));
    let service = service_fn(move |request| {
        let (engine, switch) = (Arc::clone(&engine), switch.clone());
        async move { Ok::<_, Infallible>(routes::answer(engine, switch, request).await) }
    });
    let served = http1::Builder::new().serve_connection(io, service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "Connection to a simulated runtime broke");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panicked) = ended {
        tracing::error!(error = %panicked, "Connection of a simulated runtime failed");
    }
}
