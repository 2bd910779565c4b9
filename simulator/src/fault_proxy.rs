//! A TCP proxy in front of one loopback address that misbehaves on demand, while it runs.
//!
//! It knows bytes only, no protocol.

mod pump;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ollama_coordinator_common::tasks::{OnExit, Tasks};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::door::Door;

const STOP_WITHIN: Duration = Duration::from_secs(5);
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

/// How the connection misbehaves. Connections that are already open feel it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyFault {
    /// Bytes pass as they come.
    None,
    /// Bytes arrive this much later, in both directions; they still flow as fast.
    Delay(Duration),
    /// A connection is closed when this many of its bytes have passed.
    CutAfter {
        /// Whose bytes are counted.
        direction: Direction,
        /// How many pass.
        bytes: u64,
    },
    /// Nothing passes and nothing is read; what waits passes when the fault is over.
    Stall,
    /// Connections are accepted, everything is read, nothing passes; what was read is lost.
    BlackHole,
    /// Connections are reset (RST).
    Reset,
    /// Connections are refused, the open ones reset. The port keeps its number.
    Refuse,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the upstream.
    ToUpstream,
    /// From the upstream to the client.
    ToClient,
}

/// A running fault proxy. Dropped, it breaks its connections and closes its port.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    fault: watch::Sender<ProxyFault>,
    is_open: watch::Receiver<bool>,
    counters: Arc<Counters>,
    tasks: Tasks,
    _stop: DropGuard,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    open: AtomicUsize,
    to_upstream: AtomicU64,
    to_client: AtomicU64,
}

impl Counters {
    fn bytes(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::ToUpstream => &self.to_upstream,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl FaultProxy {
    /// Starts a proxy on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// The upstream is not a loopback address, or no port could be opened.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        if !upstream.ip().is_loopback() {
            let refusal = format!("{upstream} is not a loopback address");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, refusal));
        }
        let (door, addr) = Door::open(0)?;
        let (fault, faults) = watch::channel(ProxyFault::None);
        let (opened, is_open) = watch::channel(true);
        let counters = Arc::<Counters>::default();
        let proxy = Proxy {
            upstream,
            door,
            faults,
            opened,
            counters: Arc::clone(&counters),
        };
        let tasks = Tasks::default();
        let serving = proxy.run(tasks.token().clone());
        tasks.spawn("fault proxy", OnExit::Log, serving);
        Ok(Self {
            addr,
            fault,
            is_open,
            counters,
            _stop: tasks.token().clone().drop_guard(),
            tasks,
        })
    }

    /// Returns where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Misbehaves like this from now on. Returns when the port is open or closed as it should be.
    pub async fn set_fault(&self, fault: ProxyFault) {
        self.fault.send_replace(fault);
        let wanted = fault != ProxyFault::Refuse;
        let mut is_open = self.is_open.clone();
        if is_open
            .wait_for(|is_open| *is_open == wanted)
            .await
            .is_err()
        {
            tracing::error!(proxy.addr = %self.addr, "Fault proxy has ended");
        }
    }

    /// Returns how many connections were accepted.
    pub fn accepted(&self) -> u64 {
        self.counters.accepted.load(Ordering::Relaxed)
    }

    /// Returns how many connections are open.
    pub fn open(&self) -> usize {
        self.counters.open.load(Ordering::Relaxed)
    }

    /// Returns how many bytes have passed.
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.counters.bytes(direction).load(Ordering::Relaxed)
    }

    /// Breaks all connections and closes the port.
    pub async fn stop(self) {
        if let Err(error) = self.tasks.stop(STOP_WITHIN).await {
            tracing::error!(%error, "Fault proxy did not stop");
        }
    }
}

struct Proxy {
    upstream: SocketAddr,
    door: Door,
    faults: watch::Receiver<ProxyFault>,
    opened: watch::Sender<bool>,
    counters: Arc<Counters>,
}

impl Proxy {
    async fn run(mut self, stopped: CancellationToken) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let served = stopped.run_until_cancelled(self.serve(&mut connections));
        let ended = served.await.unwrap_or(Ok(()));
        connections.shutdown().await;
        ended
    }

    async fn serve(&mut self, connections: &mut JoinSet<()>) -> io::Result<()> {
        loop {
            let open = *self.faults.borrow_and_update() != ProxyFault::Refuse;
            self.door.set_open(open)?;
            self.opened.send_replace(open);
            tokio::select! {
                changed = self.faults.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                accepted = self.door.accept() => match accepted {
                    Ok(client) => {
                        connections.spawn(self.connection(client));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "Fault proxy could not accept");
                        sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
            }
        }
    }

    fn connection(&self, client: TcpStream) -> impl Future<Output = ()> + use<> {
        let (faults, upstream) = (self.faults.clone(), self.upstream);
        let counters = Arc::clone(&self.counters);
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        counters.open.fetch_add(1, Ordering::Relaxed);
        let open = OpenGuard(counters);
        async move {
            if let Err(error) = pump::connection(client, upstream, faults, &open.0).await {
                tracing::debug!(%error, "Connection through the fault proxy ended");
            }
        }
    }
}

/// Counts a connection as open until it is dropped.
struct OpenGuard(Arc<Counters>);

impl Drop for OpenGuard {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
