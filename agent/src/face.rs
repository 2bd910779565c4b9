//! Which face the agent shows: a command line program's, or an icon in the tray. Decided once, from
//! how the process was started.
//!
//! Whether a session bus or a tray is there plays no part: what is missing at the start of a desktop
//! may come a moment later, and the agent serves either way.

/// How the agent shows itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Face {
    /// Log lines in a terminal or a service's journal.
    CommandLine,
    /// An icon with a menu on a desktop.
    Tray,
}

/// Whether somebody reads what the process writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// A terminal in which a person started it.
    Terminal,
    /// A file, a pipe, nothing, or a window that the system opened for this process alone.
    Unread,
}

/// The process itself, as far as it tells how it was started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process<'a> {
    /// The operating system, as [`std::env::consts::OS`] calls it.
    pub(crate) system: &'a str,
    /// Its process id.
    pub(crate) id: u32,
    /// Where its output goes.
    pub(crate) output: Output,
}

/// Decides from what was `asked` for by flag or setting, the process and its environment.
pub(crate) fn choose(
    asked: Option<Face>,
    process: Process<'_>,
    environment: impl Fn(&str) -> Option<String>,
) -> Face {
    let is_set = |name: &str| environment(name).is_some();
    let by_person = process.output == Output::Unread
        && !is_set("SSH_CONNECTION")
        && !is_service(process, &environment);
    let on_desktop = match process.system {
        "macos" | "windows" => true,
        _ => is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"),
    };
    asked.unwrap_or(if by_person && on_desktop {
        Face::Tray
    } else {
        Face::CommandLine
    })
}

/// Returns whether a service manager started this very process.
fn is_service(process: Process<'_>, environment: impl Fn(&str) -> Option<String>) -> bool {
    // A desktop is a service itself, and what it starts inherits the first of these two.
    let by_systemd = environment("INVOCATION_ID").is_some()
        && environment("SYSTEMD_EXEC_PID").is_none_or(|id| id == process.id.to_string());
    // What a person opens is called an application there, what a terminal starts `0`.
    let by_launchd = environment("XPC_SERVICE_NAME")
        .is_some_and(|name| name != "0" && !name.starts_with("application."));
    by_systemd || by_launchd || environment("NOTIFY_SOCKET").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const DESKTOP: &str = "DISPLAY=:0 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus";

    #[rstest]
    #[case::desktop("linux", Output::Unread, DESKTOP, Face::Tray)]
    #[case::wayland("linux", Output::Unread, "WAYLAND_DISPLAY=wayland-0", Face::Tray)]
    #[case::no_session_bus_yet("linux", Output::Unread, "DISPLAY=:0", Face::Tray)]
    #[case::terminal("linux", Output::Terminal, DESKTOP, Face::CommandLine)]
    #[case::no_display("linux", Output::Unread, "", Face::CommandLine)]
    #[case::bus_alone(
        "linux",
        Output::Unread,
        "DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1000/bus",
        Face::CommandLine
    )]
    #[case::ssh_with_forwarded_display(
        "linux",
        Output::Unread,
        "DISPLAY=localhost:10.0 SSH_CONNECTION=192.0.2.1_50000_192.0.2.2_22",
        Face::CommandLine
    )]
    #[case::service_of_the_user(
        "linux",
        Output::Unread,
        "DISPLAY=:0 INVOCATION_ID=0123 SYSTEMD_EXEC_PID=4711",
        Face::CommandLine
    )]
    #[case::service_of_an_older_systemd(
        "linux",
        Output::Unread,
        "DISPLAY=:0 INVOCATION_ID=0123",
        Face::CommandLine
    )]
    #[case::opened_in_a_desktop_that_is_a_service(
        "linux",
        Output::Unread,
        "DISPLAY=:0 INVOCATION_ID=0123 SYSTEMD_EXEC_PID=900",
        Face::Tray
    )]
    #[case::service_that_reports(
        "linux",
        Output::Unread,
        "DISPLAY=:0 NOTIFY_SOCKET=/run/user/1000/systemd/notify",
        Face::CommandLine
    )]
    #[case::windows_explorer("windows", Output::Unread, "", Face::Tray)]
    #[case::windows_terminal("windows", Output::Terminal, "", Face::CommandLine)]
    #[case::windows_ssh(
        "windows",
        Output::Unread,
        "SSH_CONNECTION=192.0.2.1_50000_192.0.2.2_22",
        Face::CommandLine
    )]
    #[case::finder(
        "macos",
        Output::Unread,
        "XPC_SERVICE_NAME=application.ollama-agent.12.34",
        Face::Tray
    )]
    #[case::launchd(
        "macos",
        Output::Unread,
        "XPC_SERVICE_NAME=ollama-agent",
        Face::CommandLine
    )]
    #[case::macos_terminal("macos", Output::Terminal, "XPC_SERVICE_NAME=0", Face::CommandLine)]
    fn way_of_starting_decides(
        #[case] system: &str,
        #[case] output: Output,
        #[case] environment: &str,
        #[case] expected: Face,
    ) {
        let process = Process {
            system,
            id: 4711,
            output,
        };

        let chosen = choose(None, process, variables(environment));

        assert_eq!(chosen, expected);
    }

    #[rstest]
    fn what_was_asked_for_wins(
        #[values(Face::CommandLine, Face::Tray)] asked: Face,
        #[values(Output::Terminal, Output::Unread)] output: Output,
        #[values("", DESKTOP, "INVOCATION_ID=0123", "SSH_CONNECTION=there")] environment: &str,
    ) {
        let process = Process {
            system: "linux",
            id: 4711,
            output,
        };

        assert_eq!(choose(Some(asked), process, variables(environment)), asked);
    }

    fn variables(set: &str) -> impl Fn(&str) -> Option<String> {
        move |name| {
            let mut variables = set.split_whitespace().filter_map(|one| one.split_once('='));
            let found = variables.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_owned())
        }
    }
}
