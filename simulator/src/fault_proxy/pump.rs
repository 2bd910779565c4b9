//! One connection through the fault proxy: two pumps that obey the fault as it is at each moment.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Counters, Direction, ProxyFault};

const CHUNK: usize = 16 * 1024;
/// Chunks that may be on their way while bytes are delayed.
const MOST_DELAYED: usize = 1024;

type Faults = watch::Receiver<ProxyFault>;

/// Connects to the upstream and passes bytes until either side ends or a fault does.
pub(super) async fn connection(
    mut client: TcpStream,
    upstream: SocketAddr,
    faults: Faults,
    counters: &Counters,
) -> io::Result<()> {
    let passed = tokio::select! {
        biased;
        () = torn_down(faults.clone()) => {
            client.set_zero_linger()?;
            return Ok(());
        }
        connected = TcpStream::connect(upstream) => connected,
    };
    let Ok(mut upstream) = passed else {
        return client.set_zero_linger();
    };
    upstream.set_nodelay(true)?;
    let is_reset = {
        let (from_client, to_client) = client.split();
        let (from_upstream, to_upstream) = upstream.split();
        let up = Pump::new(Direction::ToUpstream, faults.clone(), counters);
        let down = Pump::new(Direction::ToClient, faults.clone(), counters);
        let passed = async {
            tokio::try_join!(
                up.run(from_client, to_upstream),
                down.run(from_upstream, to_client),
            )
        };
        tokio::select! {
            biased;
            () = torn_down(faults) => true,
            passed = passed => match passed {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => true,
                passed => {
                    passed?;
                    false
                }
            }
        }
    };
    if is_reset {
        client.set_zero_linger()?;
        upstream.set_zero_linger()?;
    }
    Ok(())
}

/// Resolves when open connections are to be reset.
async fn torn_down(mut faults: Faults) {
    let is_fatal = |fault: &ProxyFault| matches!(fault, ProxyFault::Reset | ProxyFault::Refuse);
    if faults.wait_for(is_fatal).await.is_err() {
        pending::<()>().await;
    }
}

struct Pump<'a> {
    direction: Direction,
    faults: Faults,
    counters: &'a Counters,
    on_the_way: VecDeque<(Instant, Bytes)>,
    passed: u64,
}

/// What a pump does under a fault.
enum Mode {
    Pass { delay: Duration, at_most: u64 },
    Swallow,
    Wait,
}

impl<'a> Pump<'a> {
    fn new(direction: Direction, faults: Faults, counters: &'a Counters) -> Self {
        Self {
            direction,
            faults,
            counters,
            on_the_way: VecDeque::new(),
            passed: 0,
        }
    }

    async fn run(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let mut is_at_end = false;
        loop {
            let mode = self.mode();
            if let Mode::Pass { at_most, .. } = mode
                && self.passed >= at_most
            {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let passes = matches!(mode, Mode::Pass { .. });
            let due = self
                .on_the_way
                .front()
                .map(|(due, _)| *due)
                .filter(|_| passes);
            if passes && is_at_end && self.on_the_way.is_empty() {
                return to.shutdown().await;
            }
            let may_read =
                !is_at_end && !matches!(mode, Mode::Wait) && self.on_the_way.len() < MOST_DELAYED;
            buffer.reserve(CHUNK);
            tokio::select! {
                changed = self.faults.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.write_next(&mut to, &mode).await?;
                }
                read = from.read_buf(&mut buffer), if may_read => {
                    is_at_end = read? == 0;
                    let chunk = buffer.split().freeze();
                    if let Mode::Pass { delay, .. } = mode && !chunk.is_empty() {
                        self.on_the_way.push_back((Instant::now() + delay, chunk));
                    }
                }
            }
        }
    }

    fn mode(&mut self) -> Mode {
        let at_most = u64::MAX;
        match *self.faults.borrow_and_update() {
            ProxyFault::Delay(delay) => Mode::Pass { delay, at_most },
            ProxyFault::CutAfter { direction, bytes } if direction == self.direction => {
                let delay = Duration::ZERO;
                Mode::Pass {
                    delay,
                    at_most: bytes,
                }
            }
            ProxyFault::None | ProxyFault::CutAfter { .. } => {
                let delay = Duration::ZERO;
                Mode::Pass { delay, at_most }
            }
            ProxyFault::BlackHole => Mode::Swallow,
            ProxyFault::Stall | ProxyFault::Reset | ProxyFault::Refuse => Mode::Wait,
        }
    }

    async fn write_next(
        &mut self,
        to: &mut (impl AsyncWrite + Unpin),
        mode: &Mode,
    ) -> io::Result<()> {
        let Some((_, mut chunk)) = self.on_the_way.pop_front() else {
            return Ok(());
        };
        if let Mode::Pass { at_most, .. } = mode {
            let room = usize::try_from(at_most - self.passed).unwrap_or(usize::MAX);
            chunk.truncate(room);
        }
        to.write_all(&chunk).await?;
        self.passed += chunk.len() as u64;
        let bytes = self.counters.bytes(self.direction);
        bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}
