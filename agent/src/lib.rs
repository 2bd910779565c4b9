//! The agent: registers this machine's model runtime with a coordinator and keeps it registered.
//!
//! Read in this order: [`config`] and [`settings`] (what was asked for), [`identity`] and [`instance`]
//! (who this agent is, and that it is alone), `runtime` and [`system`] (what it can say),
//! [`coordinator`] (how it says it), `session` (when it says it: a pure state machine and the loop
//! around it), `tunnel` (carries the coordinator's requests to the runtime), [`status`] (the value that
//! shows it), [`control`] and [`pause`] (what steers it), [`panel`] (the page that does), [`face`] and
//! [`tray`] (the icon that does, and when it is there), [`doctor`] (what is broken), [`commands`] and
//! [`local`] (the command line beside serving), [`service`], `app` (the wiring).
#![warn(missing_docs)]

mod app;
pub mod autostart;
pub mod commands;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod doctor;
pub mod face;
pub mod identity;
pub mod instance;
pub mod local;
pub mod panel;
pub mod pause;
mod platform;
mod runtime;
pub mod service;
#[doc(hidden)]
pub mod session;
pub mod settings;
pub mod status;
pub mod system;
pub mod tray;
mod tunnel;

pub use app::{Agent, AgentError, finish, run};
pub use config::Config;
pub use control::Control;

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
