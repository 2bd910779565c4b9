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

/// What asks a process to end: SIGTERM, SIGINT, and a terminal that goes away.
#[cfg(unix)]
struct TerminationSignals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// Comes once: the shell and the system both tell of the same end, which forces nothing.
    hangup: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl TerminationSignals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};

        Self {
            terminate: signal(SignalKind::terminate()).expect("SIGTERM can be handled"),
            interrupt: signal(SignalKind::interrupt()).expect("SIGINT can be handled"),
            hangup: ends_with_its_terminal()
                .then(|| signal(SignalKind::hangup()).expect("SIGHUP can be handled")),
        }
    }

    async fn next(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = hangup => self.hangup = None,
        }
    }
}

/// Returns whether SIGHUP would end the process, which `nohup` has it ignore. Where that cannot be
/// told, the signal is left as it is.
#[cfg(unix)]
fn ends_with_its_terminal() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| !ignores_hangup(&status))
}

/// Reads the mask of ignored signals, in which SIGHUP is the lowest.
#[cfg(unix)]
fn ignores_hangup(status: &str) -> bool {
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 == 1)
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

    #[cfg(unix)]
    #[test]
    fn hangup_that_is_ignored_stays_so() {
        assert!(ignores_hangup("Name:\ta\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("Name:\ta\nSigIgn:\t0000000000001000\n"));
        assert!(ignores_hangup("Name:\ta\n"));
    }

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
