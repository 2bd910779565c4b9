//! A listening port that can refuse connections for a while and come back as the same port.
//!
//! While closed, the port stays bound but does not listen: connections are refused by the system
//! and no other process can take the port.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

const BACKLOG: u32 = 4096;

/// A port on a loopback address, open or closed.
#[derive(Debug)]
pub(crate) enum Door {
    /// Connections are accepted.
    Open(TcpListener),
    /// Connections are refused.
    Closed(TcpSocket),
    /// The port was lost while it changed.
    Gone,
}

impl Door {
    /// Opens a port on 127.0.0.1; port 0 lets the system choose.
    pub(crate) fn open(port: u16) -> io::Result<(Self, SocketAddr)> {
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
        let addr = socket.local_addr()?;
        Ok((Self::Open(socket.listen(BACKLOG)?), addr))
    }

    /// Opens or closes the port; it keeps its number.
    pub(crate) fn set_open(&mut self, open: bool) -> io::Result<()> {
        match (std::mem::replace(self, Self::Gone), open) {
            (Self::Open(listener), false) => {
                let addr = listener.local_addr()?;
                drop(listener);
                *self = Self::Closed(bind(addr)?);
            }
            (Self::Closed(socket), true) => *self = Self::Open(socket.listen(BACKLOG)?),
            (unchanged, _) => *self = unchanged,
        }
        Ok(())
    }

    /// Waits for the next connection; for ever while closed.
    pub(crate) async fn accept(&self) -> io::Result<TcpStream> {
        match self {
            Self::Open(listener) => {
                let (stream, _peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            }
            Self::Closed(_) | Self::Gone => std::future::pending().await,
        }
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(addr)?;
    Ok(socket)
}
