//! Everything that a tray shows, as one value that follows the status.

use std::time::Duration;

use tokio::sync::watch;

use super::condition::Condition;
use super::{Icon, Menu};
use crate::config::Panel;
use crate::status::AgentStatus;

/// Longer tooltips are cut off by Windows.
const LONGEST_TOOLTIP: usize = 120;

/// A longer name would leave no room for what is said about it.
const LONGEST_NAME: usize = 40;

/// Requests come and go faster than anybody reads, and each change wakes the whole panel.
const PACE: Duration = Duration::from_millis(250);

/// What a tray shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) icon: Icon,
    pub(super) tooltip: String,
    pub(super) menu: Menu,
}

impl View {
    pub(super) fn of(status: &AgentStatus, panel: Panel) -> Self {
        let condition = Condition::of(status);
        let mut tooltip = headline(status, &condition);
        if let (Condition::Disconnected, Some(error)) = (&condition, &status.last_error) {
            tooltip = format!("{tooltip}: {error}");
        }
        Self {
            icon: Icon::of(&condition),
            tooltip: tooltip.chars().take(LONGEST_TOOLTIP).collect(),
            menu: Menu::of(status, panel),
        }
    }
}

/// Returns what the agent does now, on one line.
pub(super) fn headline(status: &AgentStatus, condition: &Condition) -> String {
    let name: String = status.machine_name.chars().take(LONGEST_NAME).collect();
    format!("{name}: {condition}")
}

/// The views of an agent, one after another: none twice in a row, and only a few a second.
#[derive(Debug)]
pub(super) struct Views {
    status: watch::Receiver<AgentStatus>,
    panel: Panel,
    last: View,
}

impl Views {
    pub(super) fn new(status: watch::Receiver<AgentStatus>, panel: Panel) -> Self {
        let last = View::of(&status.borrow(), panel);
        Self {
            status,
            panel,
            last,
        }
    }

    /// Returns the one that is to be seen until the next.
    pub(super) fn last(&self) -> View {
        self.last.clone()
    }

    /// Waits for one that differs; for ever once the agent has ended.
    pub(super) async fn next(&mut self) -> View {
        loop {
            tokio::time::sleep(PACE).await;
            if self.status.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            let view = View::of(&self.status.borrow_and_update(), self.panel);
            if view != self.last {
                self.last.clone_from(&view);
                return view;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Config;
    use crate::status::Phase;
    use ollama_coordinator_common::base_url::BaseUrl;
    use ollama_coordinator_common::protocol::runtime::RuntimeReport;

    #[test]
    fn tooltip_says_why_there_is_no_connection() {
        let status = AgentStatus {
            phase: Phase::Disconnected { failures: 2 },
            last_error: Some("connection refused".to_owned()),
            ..sample()
        };

        let view = View::of(&status, Panel::Off);

        assert_eq!(
            view.tooltip,
            "gpu-02: not connected, trying again: connection refused"
        );
    }

    #[test]
    fn long_texts_leave_room_for_what_matters() {
        let status = AgentStatus {
            phase: Phase::Disconnected { failures: 2 },
            machine_name: "é".repeat(255),
            last_error: Some("because ".repeat(50)),
            ..sample()
        };

        let tooltip = View::of(&status, Panel::Off).tooltip;

        assert_eq!(tooltip.chars().count(), LONGEST_TOOLTIP);
        assert!(tooltip.contains("not connected"), "{tooltip}");
    }

    #[tokio::test(start_paused = true)]
    async fn views_skip_what_nobody_would_see() {
        let (status, seen) = watch::channel(sample());
        let mut views = Views::new(seen, Panel::Off);
        let first = views.last();

        status.send_modify(|status| status.runtime.report = Some(RuntimeReport::default()));
        status.send_modify(|status| status.running = 1);
        status.send_modify(|status| status.running = 2);
        let next = views.next().await;

        assert_eq!(first.tooltip, "gpu-02: ready");
        assert_eq!(next.tooltip, "gpu-02: ready, 2 running");
        assert_eq!(views.last(), next);
        let more = tokio::time::timeout(10 * PACE, views.next()).await;
        assert!(more.is_err());
    }

    /// Returns the status of an agent that takes requests.
    pub(in crate::tray) fn sample() -> AgentStatus {
        let url = |text| BaseUrl::parse(text, 1).unwrap();
        let config = Config::new(
            url("192.168.1.10:11400"),
            url("127.0.0.1:11434"),
            "/nowhere".into(),
        );
        AgentStatus {
            phase: Phase::Connected { unroutable: None },
            machine_name: "gpu-02".to_owned(),
            ..AgentStatus::starting(&config)
        }
    }
}
