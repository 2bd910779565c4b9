//! Stand-ins for everything around a coordinator, for tests, benchmarks and `--dev`.
//!
//! Read in this order: [`runtime`] (a model server that follows a script), [`fleet`] (thousands of
//! cheap agents that speak the real protocol), [`tunnel`] (the end of a tunnel that does what it is
//! told), [`fault_proxy`] (a connection that misbehaves on demand), [`history`] (what a run under
//! faults must have kept) and [`wait`] (how a test waits for something to become true). [`cli`] is
//! the `ollama-simulator` command. Everything binds to and dials loopback addresses only.
#![warn(missing_docs)]

pub mod cli;
pub mod fault_proxy;
pub mod fleet;
pub mod history;
pub mod runtime;
pub mod tunnel;
pub mod wait;

mod door;
