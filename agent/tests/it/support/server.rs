//! A server on 127.0.0.1 that may start later than its address is known, stop and start again.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use ollama_coordinator_common::base_url::BaseUrl;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An address on which nothing listens yet: connections are refused.
#[derive(Debug)]
pub(crate) struct Reserved {
    socket: TcpSocket,
    addr: SocketAddr,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    fn at(addr: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(addr).unwrap();
        let addr = socket.local_addr().unwrap();
        Self { socket, addr }
    }

    pub(crate) fn url(&self) -> BaseUrl {
        BaseUrl::from_addr(self.addr)
    }

    pub(crate) fn serve(self, router: Router) -> Server {
        let listener = self.socket.listen(64).unwrap();
        let token = CancellationToken::new();
        let stopping = token.clone().cancelled_owned();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(stopping)
                .await
                .unwrap();
        });
        Server {
            addr: self.addr,
            token,
            serving,
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    addr: SocketAddr,
    token: CancellationToken,
    serving: JoinSet<()>,
}

impl Server {
    pub(crate) fn url(&self) -> BaseUrl {
        BaseUrl::from_addr(self.addr)
    }

    /// Stops listening, closes every connection and keeps the address.
    pub(crate) async fn stop(mut self) -> Reserved {
        self.token.cancel();
        while self.serving.join_next().await.is_some() {}
        Reserved::at(self.addr)
    }
}
