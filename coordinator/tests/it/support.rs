//! What every area's tests stand on: coordinators to start and end, and somebody to call them.

pub(crate) mod agent;
#[cfg(target_os = "linux")]
pub(crate) mod agent_process;
pub(crate) mod api;
pub(crate) mod bulk;
pub(crate) mod chat;
pub(crate) mod clock;
pub(crate) mod collector;
pub(crate) mod coordinator;
pub(crate) mod crowd;
pub(crate) mod events;
pub(crate) mod machine;
pub(crate) mod mount;
#[cfg(target_os = "linux")]
pub(crate) mod nat;
#[cfg(target_os = "linux")]
pub(crate) mod network;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod seen;
#[cfg(target_os = "linux")]
pub(crate) mod site;
pub(crate) mod tunnel;
pub(crate) mod upstream;
pub(crate) mod watch;

use std::io::Write as _;

/// Writes a line where no test harness hides it.
pub(crate) fn say(line: &str) {
    let line = format!("{line}\n");
    let written = std::io::stderr().write_all(line.as_bytes());
    written.expect("standard error is open");
}

/// Says loudly that a test could not be run here.
pub(crate) fn skip(test: &str, reason: &str) {
    say(&format!("SKIPPED {test}: {reason}"));
}

/// Reads how large a run is to be from the environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("the setting is a number"),
        Err(_unset) => default,
    }
}

/// Compares a body with its snapshot; hides what differs from run to run.
macro_rules! assert_body {
    ($name:expr, $body:expr) => {
        insta::assert_json_snapshot!($name, $body, {
            ".id" => "[id]",
            ".request_id" => "[request id]",
            ".coordinator.instance_id" => "[instance id]",
            ".registered_at" => "[time]",
            ".last_seen" => "[time]",
        })
    };
}

pub(crate) use assert_body;
