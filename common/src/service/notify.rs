//! What a service tells systemd: that it serves, and that it is stopping. Elsewhere it tells nobody.

/// Says that the service serves.
pub fn ready() {
    imp::say(imp::State::Ready);
}

/// Says that the service is stopping, and still finishes what it does.
pub fn stopping() {
    imp::say(imp::State::Stopping);
}

#[cfg(target_os = "linux")]
mod imp {
    pub(super) use sd_notify::NotifyState as State;

    pub(super) fn say(state: State<'_>) {
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "The service manager could not be told how it goes");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    pub(super) enum State {
        Ready,
        Stopping,
    }

    /// Windows is told by `scm`, launchd looks at the process.
    pub(super) fn say(state: State) {
        match state {
            State::Ready | State::Stopping => {}
        }
    }
}
