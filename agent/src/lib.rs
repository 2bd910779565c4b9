//! The agent: registers this machine's model runtime with a coordinator and keeps it registered.
//!
//! Read in this order: [`config`] (what was asked for), [`identity`] and [`instance`] (who this
//! agent is, and that it is alone), `runtime` and [`system`] (what it can say), [`coordinator`]
//! (how it says it), `session` (when it says it: a pure state machine and the loop around it),
//! `tunnel` (carries the coordinator's requests to the runtime), [`status`] (the value that shows it), `app` (the wiring).
#![warn(missing_docs)]

mod app;
pub mod config;
pub mod coordinator;
pub mod identity;
pub mod instance;
mod platform;
mod runtime;
mod session;
pub mod status;
pub mod system;
mod tunnel;

pub use app::{AgentError, run, run_with_status};
pub use config::Config;

/// Returns the error's text and those of its causes, as one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push_str(": ");
        chain.push_str(&error.to_string());
        cause = error.source();
    }
    chain
}
