//! The agent against scripted coordinators and runtimes, over real sockets and files.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "shared steps of tests fail the test that takes them"
)]

mod cli;
mod config;
mod first_failures;
mod identity;
mod panel;
mod pause;
mod runtime;
#[cfg(target_os = "linux")]
mod service;
mod session;
mod settings;
mod status;
mod support;
#[cfg(target_os = "linux")]
mod tray;
mod tunnel;
