//! What every area's tests stand on: coordinators to start and end, and somebody to call them.

pub(crate) mod agent;
pub(crate) mod api;
pub(crate) mod coordinator;
pub(crate) mod port;
pub(crate) mod process;

use std::io::Write as _;

/// Says on standard error, where no test harness hides it, that a test could not be run here.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED {test}: {reason}\n");
    std::io::stderr()
        .write_all(line.as_bytes())
        .expect("standard error is open");
}
