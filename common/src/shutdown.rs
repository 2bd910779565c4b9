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
        loop {
            termination_signal().await;
            self.trigger();
        }
    }
}

#[cfg(unix)]
async fn termination_signal() {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate()).expect("SIGTERM can be handled");
    let mut interrupt = signal(SignalKind::interrupt()).expect("SIGINT can be handled");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(windows)]
async fn termination_signal() {
    use tokio::signal::windows;

    let mut ctrl_c = windows::ctrl_c().expect("Ctrl-C can be handled");
    let mut close = windows::ctrl_close().expect("console close can be handled");
    let mut logoff = windows::ctrl_logoff().expect("logoff can be handled");
    let mut shutdown = windows::ctrl_shutdown().expect("shutdown can be handled");
    tokio::select! {
        _ = ctrl_c.recv() => {}
        _ = close.recv() => {}
        _ = logoff.recv() => {}
        _ = shutdown.recv() => {}
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
