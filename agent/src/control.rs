//! The one handle by which tray and panel steer the agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ollama_coordinator_common::shutdown::Shutdown;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::Config;
use crate::panel::{Opener, PanelLinks};
use crate::pause::{Pause, PauseError};
use crate::status::AgentStatus;

/// How often the wall clock is asked whether a pause is over, because the machine may sleep.
const CLOCK_PERIOD: Duration = Duration::from_secs(5);

/// Steers a running agent. Clones steer the same one.
#[derive(Debug, Clone)]
pub struct Control(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state_dir: PathBuf,
    status: watch::Sender<AgentStatus>,
    pause: watch::Sender<Option<Pause>>,
    wanted: watch::Sender<Config>,
    panel: watch::Sender<Option<PanelLinks>>,
    shutdown: Shutdown,
    /// Held while a pause is written, so that file and memory end up the same.
    keeping: Mutex<()>,
}

impl Control {
    pub(crate) fn new(config: Config, pause: Option<Pause>, shutdown: Shutdown) -> Self {
        let mut status = AgentStatus::starting(&config);
        status.paused = pause;
        Self(Arc::new(Shared {
            state_dir: config.state_dir.clone(),
            status: watch::Sender::new(status),
            pause: watch::Sender::new(pause),
            wanted: watch::Sender::new(config),
            panel: watch::Sender::new(None),
            shutdown,
            keeping: Mutex::new(()),
        }))
    }

    /// Returns how the agent is, now and from now on.
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.0.status.subscribe()
    }

    /// Stops taking requests, for a time or until somebody resumes; those that run may finish. It
    /// writes a small file, so that a restart changes nothing; meanwhile everything else goes on.
    ///
    /// # Errors
    /// It cannot be kept, or is too long; nothing has changed.
    pub async fn pause(&self, length: Option<Duration>) -> Result<(), PauseError> {
        let pause = Pause::lasting(length, SystemTime::now())?;
        self.aside(move |control| control.keep(Some(pause))).await
    }

    /// Takes requests again.
    ///
    /// # Errors
    /// The pause that is kept cannot be removed; nothing has changed.
    pub async fn resume(&self) -> Result<(), PauseError> {
        self.aside(|control| control.keep(None)).await
    }

    /// Goes on with other settings, as the same agent; what runs goes on until it ends. The state
    /// directory, the panel and the log stay as they are until the process starts anew.
    pub fn apply(&self, config: Config) {
        let wanted = self.0.wanted.borrow().clone();
        let config = Config {
            state_dir: wanted.state_dir.clone(),
            panel: wanted.panel,
            log_format: wanted.log_format,
            ..config
        };
        if config.settings() == wanted.settings() {
            return;
        }
        // In this order: the engine that takes them over says so.
        let status = &self.0.status;
        status.send_modify(|status| status.is_outdated = true);
        self.0.wanted.send_replace(config);
    }

    /// Waits until the settings that were applied last are in force.
    pub(crate) async fn settled(&self) {
        let mut status = self.status();
        let settled = status.wait_for(|status| !status.is_outdated).await;
        settled.expect("this handle keeps the status");
    }

    /// Ends the agent: what runs is finished, and goodbye is said. Asked twice, at once.
    pub fn quit(&self) {
        self.0.shutdown.trigger();
    }

    /// Returns a link for the desktop to open the settings panel, once and soon; `None`: there is no
    /// panel.
    pub fn panel_link(&self) -> Option<String> {
        let panel = self.0.panel.borrow();
        panel.as_ref().map(|links| links.fresh(Opener::Own).url)
    }

    pub(crate) fn set_panel(&self, panel: Option<PanelLinks>) {
        self.0.panel.send_replace(panel);
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.0.state_dir
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    pub(crate) fn status_sender(&self) -> watch::Sender<AgentStatus> {
        self.0.status.clone()
    }

    pub(crate) fn pauses(&self) -> watch::Receiver<Option<Pause>> {
        self.0.pause.subscribe()
    }

    pub(crate) fn wanted(&self) -> watch::Receiver<Config> {
        self.0.wanted.subscribe()
    }

    /// Ends pauses that are over.
    pub(crate) async fn end_pauses(&self) {
        let mut pauses = self.pauses();
        loop {
            let pause = *pauses.borrow_and_update();
            let left = pause.and_then(|pause| pause.left(SystemTime::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.aside(move |control| control.end(pause)).await;
                continue;
            }
            let wait = left.map_or(Duration::MAX, |left| left.min(CLOCK_PERIOD));
            let changed = tokio::time::timeout(wait, pauses.changed()).await;
            if changed.is_ok_and(|changed| changed.is_err()) {
                return;
            }
        }
    }

    /// Does what waits for the disk, off the thread that carries requests.
    async fn aside<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let control = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&control)).await;
        done.expect("keeping a pause does not panic")
    }

    /// A file that stays says when the pause ended: it does no harm.
    fn end(&self, pause: Option<Pause>) {
        let _kept = self.0.keeping.lock();
        if *self.0.pause.borrow() != pause {
            return;
        }
        if let Err(error) = Pause::keep(None, &self.0.state_dir) {
            tracing::debug!(error = crate::error_chain(&error), "The pause's file stays");
        }
        self.publish(None);
    }

    fn keep(&self, pause: Option<Pause>) -> Result<(), PauseError> {
        let _kept = self.0.keeping.lock();
        Pause::keep(pause, &self.0.state_dir)?;
        self.publish(pause);
        Ok(())
    }

    fn publish(&self, pause: Option<Pause>) {
        match (pause, *self.0.pause.borrow()) {
            (Some(Pause { until }), _) => {
                let until = until.map(|until| humantime::format_rfc3339_seconds(until).to_string());
                tracing::info!(until, "Paused: this machine takes no requests");
            }
            (None, Some(_)) => tracing::info!("Resumed: this machine takes requests again"),
            (None, None) => {}
        }
        self.0.pause.send_replace(pause);
        self.0.status.send_if_modified(|status| {
            let is_other = status.paused != pause;
            status.paused = pause;
            is_other
        });
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use ollama_coordinator_common::base_url::BaseUrl;

    use super::*;

    #[tokio::test]
    async fn disk_that_takes_its_time_holds_up_nothing_else() {
        let state_dir = tempfile::tempdir().unwrap();
        let url = |text| BaseUrl::parse(text, 1).unwrap();
        let (coordinator, runtime) = (url("127.0.0.1:1"), url("127.0.0.1:2"));
        let config = Config::new(coordinator, runtime, state_dir.path().to_owned());
        let control = Control::new(config, None, Shutdown::default());
        let mut pausing = std::pin::pin!(control.pause(None));

        let is_waiting = {
            let _busy = control.0.keeping.lock();
            let mut context = Context::from_waker(Waker::noop());
            pausing.as_mut().poll(&mut context).is_pending()
        };
        pausing.await.unwrap();

        assert!(is_waiting);
        assert!(control.status().borrow().paused.is_some());
    }
}
