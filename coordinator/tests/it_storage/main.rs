//! Durable storage against real files, failing files and simulated power loss.
#![expect(
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "what surrounds a test fails by panicking, too, and explains itself on the terminal"
)]
#![cfg(unix)]

mod support;

mod conformance;
mod damage;
mod directory;
mod import;
mod journal;
mod journal_damage;
mod journal_model;
mod mounts;
mod power_loss;
mod recipe;
mod writer;
