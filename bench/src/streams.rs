//! Many streams at once: how many of their chunks arrive, and how long each was on its way.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::client::request;
use crate::process::Process;
use crate::upstream::{STAMP, chat, now};

/// Streams outlast every window; they are broken off at its end.
const CHUNKS: u64 = 1_000_000;
const BEGUN_WITHIN: Duration = Duration::from_secs(10);
const SETTLED_AFTER: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const READ_AT_ONCE: usize = 16 * 1024;
/// A time since the start of the machine in nanoseconds has at least so many digits.
const SHORTEST_STAMP: usize = 10;

/// Which streams, and for how long their chunks are counted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    /// How many at once.
    pub(crate) count: u32,
    /// The time between two chunks of each.
    pub(crate) pace: Duration,
    /// For how long.
    pub(crate) window: Duration,
}

/// What came of it within the window.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// Chunks that arrived.
    pub(crate) chunks: u64,
    /// How long each was on its way.
    pub(crate) transits: Vec<Duration>,
    /// How long the window was.
    pub(crate) took: Duration,
    /// What the processes under test needed for it.
    pub(crate) cpu: Duration,
    /// Their memory at the end of the window, in bytes.
    pub(crate) memory: u64,
    /// Streams of which something had arrived when the window began.
    pub(crate) begun: u32,
}

#[derive(Debug, Default)]
struct Tally {
    streamed: Streamed,
    failure: Option<String>,
}

/// Opens the streams, waits until all have begun or for some seconds, and counts.
pub(crate) async fn run(
    addr: SocketAddr,
    path: &str,
    streams: Streams,
    processes: &[&Process],
) -> anyhow::Result<Streamed> {
    let body = chat(Some((CHUNKS, streams.pace)));
    let request: Arc<[u8]> = request("POST", path, None, &body).into();
    let tally = Arc::new(Mutex::new(Tally::default()));
    let mut readers = JoinSet::new();
    for _ in 0..streams.count {
        let stream = TcpStream::connect(addr).await;
        let stream = stream.context("cannot connect for a stream")?;
        stream.set_nodelay(true)?;
        let (request, tally) = (Arc::clone(&request), Arc::clone(&tally));
        readers.spawn(read(stream, request, tally));
        // Spread over the time between two chunks, as independent streams are.
        sleep(streams.pace / streams.count).await;
    }
    let deadline = Instant::now() + BEGUN_WITHIN;
    while tally.lock().streamed.begun < streams.count && Instant::now() < deadline {
        sleep(LOOK_EVERY).await;
    }
    sleep(SETTLED_AFTER).await;

    let begun = {
        let mut tally = tally.lock();
        let begun = tally.streamed.begun;
        tally.streamed = Streamed::default();
        begun
    };
    let (started, before) = (Instant::now(), cpu_of(processes));
    sleep(streams.window).await;
    let mut tally = std::mem::take(&mut *tally.lock());
    let cpu = cpu_of(processes).saturating_sub(before);
    let took = started.elapsed();
    let memory = processes.iter().map(|process| process.memory()).sum();
    readers.shutdown().await;
    if let Some(failure) = tally.failure.take() {
        anyhow::bail!("a stream ended: {failure}");
    }
    Ok(Streamed {
        took,
        cpu,
        memory,
        begun,
        ..tally.streamed
    })
}

fn cpu_of(processes: &[&Process]) -> Duration {
    processes.iter().map(|process| process.cpu()).sum()
}

async fn read(mut stream: TcpStream, request: Arc<[u8]>, tally: Arc<Mutex<Tally>>) {
    let mut received = Vec::with_capacity(READ_AT_ONCE);
    let mut begun = false;
    let ended = async {
        stream.write_all(&request).await?;
        loop {
            received.reserve(READ_AT_ONCE);
            if stream.read_buf(&mut received).await? == 0 {
                return Err::<(), _>(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let arrived = now();
            let mut tally = tally.lock();
            let streamed = &mut tally.streamed;
            let used = stamps(&received, |sent| {
                streamed.chunks += 1;
                let transit = Duration::from_nanos(arrived.saturating_sub(sent));
                streamed.transits.push(transit);
            });
            if used > 0 && !begun {
                begun = true;
                streamed.begun += 1;
            }
            drop(tally);
            received.drain(..used);
        }
    };
    if let Err(broken) = ended.await {
        let said = String::from_utf8_lossy(&received);
        let said: String = said.chars().take(120).collect();
        tally.lock().failure = Some(format!("{broken}: {said:?}"));
    }
}

/// Tells every whole stamp in `bytes` and returns up to where all has been used.
fn stamps(bytes: &[u8], mut tell: impl FnMut(u64)) -> usize {
    let mut used = 0;
    while let Some(rest) = bytes.get(used..) {
        let mark = STAMP.as_bytes();
        let Some(at) = rest.windows(mark.len()).position(|window| window == mark) else {
            break;
        };
        let digits = &rest[at + mark.len()..];
        let Some(length) = digits.iter().position(|byte| !byte.is_ascii_digit()) else {
            break;
        };
        let text = std::str::from_utf8(&digits[..length]).unwrap_or_default();
        if let (true, Ok(sent)) = (length >= SHORTEST_STAMP, text.parse()) {
            tell(sent);
        }
        used += at + mark.len() + length;
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_that_is_not_whole_is_left_for_later() {
        let bytes = br#"{"sent 1234567890123"},{"sent 12345678901"#;
        let mut told = Vec::new();

        let used = stamps(bytes, |sent| told.push(sent));

        assert_eq!(told, [1_234_567_890_123]);
        assert_eq!(&bytes[used..], br#""},{"sent 12345678901"#);
    }
}
