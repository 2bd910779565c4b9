//! How a process learns that it should stop, on every platform.

use tokio_util::sync::CancellationToken;

/// What the operator asks of the process: first to stop, then to stop at once.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    stop: CancellationToken,
    force: CancellationToken,
}

impl Shutdown {
    /// Resolves when the process should stop gracefully.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Resolves when the process should stop without waiting for anything.
    pub async fn forced(&self) {
        self.force.cancelled().await;
    }

    /// Returns whether a stop has been asked for.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Asks for a stop; asked a second time, forces it.
    pub fn trigger(&self) {
        if self.stop.is_cancelled() {
            self.force.cancel();
        } else {
            self.stop.cancel();
        }
    }

    /// Waits for termination signals for ever and turns each into a [`Shutdown::trigger`].
    pub async fn watch_signals(self) {
        let mut signals = TerminationSignals::listen();
        loop {
            signals.next().await;
            self.trigger();
        }
    }
}

/// What asks a process to end: SIGTERM and SIGINT.
#[cfg(unix)]
struct TerminationSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl TerminationSignals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        Self {
            terminate: signal(SignalKind::terminate()).expect("SIGTERM can be handled"),
            interrupt: signal(SignalKind::interrupt()).expect("SIGINT can be handled"),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What asks a process to end: Ctrl-C, a closed console, logging off, shutting down.
#[cfg(windows)]
struct TerminationSignals {
    ctrl_c: tokio::signal::windows::CtrlC,
    close: tokio::signal::windows::CtrlClose,
    logoff: tokio::signal::windows::CtrlLogoff,
    shutdown: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl TerminationSignals {
    fn listen() -> Self {
        use tokio::signal::windows;

        Self {
            ctrl_c: windows::ctrl_c().expect("Ctrl-C can be handled"),
            close: windows::ctrl_close().expect("console close can be handled"),
            logoff: windows::ctrl_logoff().expect("logoff can be handled"),
            shutdown: windows::ctrl_shutdown().expect("shutdown can be handled"),
        }
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.close.recv() => {}
            _ = self.logoff.recv() => {}
            _ = self.shutdown.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn second_request_to_stop_forces() {
        let shutdown = Shutdown::default();

        shutdown.trigger();
        shutdown.stopping().await;
        assert!(!shutdown.force.is_cancelled());

        shutdown.trigger();
        shutdown.forced().await;
    }
}
