//! One keep-alive HTTP/1.1 connection that costs the load generator next to nothing.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const ANSWER_WITHIN: Duration = Duration::from_mins(1);
const READ_AT_ONCE: usize = 16 * 1024;
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// A connection to a server on this machine.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// Its status code.
    pub(crate) status: u16,
    /// Its body; chunked ones with their framing.
    pub(crate) body: &'a [u8],
    /// When the first byte of the body was there.
    pub(crate) first_body_byte: Instant,
}

impl Answer<'_> {
    /// Returns whether the status says success.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Connection {
    /// Opens a connection; only this machine is ever dialled.
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        if !addr.ip().is_loopback() {
            return Err(io::Error::other("only loopback addresses are dialled"));
        }
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::with_capacity(READ_AT_ONCE),
        })
    }

    /// Sends a whole request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let exchange = timeout(ANSWER_WITHIN, self.receive());
        let (status, body_at, first_body_byte) = exchange
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        let body = &self.received[body_at..];
        Ok(Answer {
            status,
            body,
            first_body_byte,
        })
    }

    /// Sends a request and reads its answer for as long as it comes, without keeping it.
    pub(crate) async fn read_on(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        loop {
            self.received.clear();
            self.read_some().await?;
        }
    }

    async fn receive(&mut self) -> io::Result<(u16, usize, Instant)> {
        self.received.clear();
        let head = loop {
            self.read_some().await?;
            if let Some(head) = Head::parse(&self.received)? {
                break head;
            }
        };
        let needed = match head.framing {
            Framing::Length(length) => head.length + length,
            Framing::Chunked => head.length + 1,
        };
        while self.received.len() < needed {
            self.read_some().await?;
        }
        let first_body_byte = Instant::now();
        while head.framing == Framing::Chunked && !self.received.ends_with(LAST_CHUNK) {
            self.read_some().await?;
        }
        Ok((head.status, head.length, first_body_byte))
    }

    async fn read_some(&mut self) -> io::Result<()> {
        self.received.reserve(READ_AT_ONCE);
        match self.stream.read_buf(&mut self.received).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _some => Ok(()),
        }
    }
}

/// Returns the bytes of a request.
pub(crate) fn request(method: &str, path: &str, secret: Option<&str>, body: &str) -> Vec<u8> {
    let authorization = secret.map_or_else(String::new, |secret| {
        format!("authorization: Bearer {secret}\r\n")
    });
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         {authorization}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    framing: Framing,
}

impl Head {
    /// Reads the head of an answer; `None` while it is not whole.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(None);
        };
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_not_utf8| invalid())?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|code| code.parse().ok());
        let status = status.ok_or_else(invalid)?;
        let mut framing = Framing::Length(0);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let length = value.trim().parse().map_err(|_not_a_number| invalid())?;
                framing = Framing::Length(length);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            }
        }
        Ok(Some(Self {
            status,
            length: end + 4,
            framing,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_is_read_when_it_is_whole() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhel";

        let whole = Head::parse(bytes).unwrap();

        let framing = Framing::Length(12);
        assert_eq!(
            whole,
            Some(Head {
                status: 200,
                length: 39,
                framing
            })
        );
        assert_eq!(Head::parse(&bytes[..30]).unwrap(), None);
    }

    #[test]
    fn head_without_a_status_is_an_error() {
        assert!(Head::parse(b"hello\r\n\r\n").is_err());
    }
}
