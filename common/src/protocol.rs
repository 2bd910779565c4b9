//! Every JSON shape between agent, coordinator and the dashboard.
//!
//! Durations on the wire are whole milliseconds and say so in their names; times are RFC 3339 in
//! UTC and come from the coordinator's clock. Unknown fields are ignored by every reader.

pub mod error;
pub mod event;
pub mod heartbeat;
pub mod history;
pub mod pause;
pub mod register;
pub mod request;
pub mod runtime;
pub mod system;
pub mod tunnel;
pub mod view;
