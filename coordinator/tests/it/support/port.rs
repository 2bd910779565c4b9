//! A port that stays this test's own while coordinators on it come and go.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

const BACKLOG: i32 = 1024;

/// Holds a free port, of 127.0.0.1 unless told otherwise: bound, so that the system gives it to nobody else, but not
/// listening, so that a coordinator which is told this port can have it.
#[derive(Debug)]
pub(crate) struct ReservedPort {
    addr: SocketAddr,
    _bound: Socket,
}

impl ReservedPort {
    pub(crate) fn new() -> Self {
        Self::on(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Holds an address and port.
    pub(crate) fn on(addr: SocketAddr) -> Self {
        let bound = bind(addr);
        let addr = bound.local_addr().expect("a bound socket has an address");
        Self {
            addr: addr.as_socket().expect("it is an IP address"),
            _bound: bound,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Listens in this process.
    pub(crate) fn listen(&self) -> TcpListener {
        let socket = bind(self.addr);
        socket.set_nonblocking(true).expect("a socket can");
        socket.listen(BACKLOG).expect("nobody else listens");
        TcpListener::from_std(socket.into()).expect("it is a listening socket")
    }
}

fn bind(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP));
    let socket = socket.expect("a socket can be made");
    socket.set_reuse_address(true).expect("a socket can");
    socket.bind(&addr.into()).expect("the port is free");
    socket
}
