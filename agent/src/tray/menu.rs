//! The menu as a value: what stands in it, and what each line does.

use std::time::Duration;

use super::condition::Condition;
use super::view::headline;
use crate::config::Panel;
use crate::status::AgentStatus;

/// A menu, from top to bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Menu(pub Vec<Entry>);

/// One line of a menu.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Something to read or to click.
    Item(Item),
    /// A line between groups.
    Separator,
    /// Items behind a label.
    Submenu {
        /// What it says.
        label: String,
        /// What opens beside it.
        items: Vec<Item>,
    },
}

/// A text, and what a click on it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What it says.
    pub label: String,
    /// What it does; without it, it is shown greyed and cannot be clicked.
    pub action: Option<Action>,
}

/// What somebody asks for with a click.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Show the coordinator's dashboard in a browser.
    OpenDashboard,
    /// Show this machine's settings in a browser.
    OpenSettings,
    /// Take no requests for a while, or until resumed.
    Pause(Option<Duration>),
    /// Take requests again.
    Resume,
    /// Put what helps to find a fault into the clipboard.
    CopyDiagnostics,
    /// Finish what runs, say goodbye, end; asked again, end at once.
    Quit,
}

impl Menu {
    /// Returns the menu for a status. Its lines are always the same, so that an open menu stays as it
    /// is; only texts change, and what can be clicked.
    pub fn of(status: &AgentStatus, panel: Panel) -> Self {
        let condition = Condition::of(status);
        let is_stopping = matches!(condition, Condition::Stopping { .. });
        let when = |possible: bool, action| (possible && !is_stopping).then_some(action);
        let quit = if is_stopping { "Quit at once" } else { "Quit" };
        let pause = |label: &str, length| Item {
            label: label.to_owned(),
            action: when(true, Action::Pause(length)),
        };
        let item = |label: &str, action| {
            Entry::Item(Item {
                label: label.to_owned(),
                action,
            })
        };
        Self(vec![
            item(&headline(status, &condition), None),
            Entry::Separator,
            item(
                "Open dashboard",
                when(status.coordinator.is_some(), Action::OpenDashboard),
            ),
            item(
                "Open this machine's settings",
                when(panel != Panel::Off, Action::OpenSettings),
            ),
            Entry::Separator,
            Entry::Submenu {
                label: "Pause sharing".to_owned(),
                items: vec![
                    pause("30 minutes", Some(Duration::from_mins(30))),
                    pause("1 hour", Some(Duration::from_hours(1))),
                    pause("Until I resume", None),
                ],
            },
            item(
                "Resume sharing",
                when(status.paused.is_some(), Action::Resume),
            ),
            Entry::Separator,
            item("Copy diagnostics", Some(Action::CopyDiagnostics)),
            item(quit, Some(Action::Quit)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pause::Pause;
    use crate::status::Phase;
    use crate::tray::view::tests::sample;

    #[test]
    fn menu_of_an_agent_that_is_ready() {
        insta::assert_snapshot!(in_lines(&menu(&sample())));
    }

    #[test]
    fn menu_of_an_agent_that_stops() {
        let status = AgentStatus {
            phase: Phase::Leaving,
            running: 1,
            ..sample()
        };

        insta::assert_snapshot!(in_lines(&menu(&status)));
    }

    /// A line that moved under the pointer would be clicked by mistake.
    #[test]
    fn lines_stay_where_they_are() {
        let ready = shape(&menu(&sample()));
        for phase in [Phase::Starting, Phase::Leaving, Phase::Stopped] {
            let status = AgentStatus { phase, ..sample() };

            assert_eq!(shape(&menu(&status)), ready);
        }
    }

    #[test]
    fn without_a_panel_there_are_no_settings_to_open() {
        let menu = Menu::of(&sample(), Panel::Off);

        let text = in_lines(&menu);
        assert!(text.contains("(Open this machine's settings)"), "{text}");
    }

    #[test]
    fn menu_of_an_agent_that_is_paused_and_not_configured() {
        let status = AgentStatus {
            phase: Phase::Unconfigured,
            paused: Some(Pause { until: None }),
            coordinator: None,
            ..sample()
        };

        insta::assert_snapshot!(in_lines(&menu(&status)));
    }

    fn menu(status: &AgentStatus) -> Menu {
        Menu::of(status, Panel::Port(0))
    }

    fn in_lines(menu: &Menu) -> String {
        let lines = menu.0.iter().map(|entry| match entry {
            Entry::Separator => "---\n".to_owned(),
            Entry::Item(item) => in_line(item),
            Entry::Submenu { label, items } => {
                let items: Vec<_> = items.iter().map(in_line).collect();
                format!("{label} >\n  {}", items.join("  "))
            }
        });
        lines.collect()
    }

    fn in_line(item: &Item) -> String {
        match item.action {
            Some(action) => format!("{} -> {action:?}\n", item.label),
            None => format!("({})\n", item.label),
        }
    }

    fn shape(menu: &Menu) -> Vec<usize> {
        let sizes = menu.0.iter().map(|entry| match entry {
            Entry::Separator => 0,
            Entry::Item(_) => 1,
            Entry::Submenu { items, .. } => 1 + items.len(),
        });
        sizes.collect()
    }
}
