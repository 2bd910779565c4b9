//! The simulator against real sockets.

mod fault_proxy;
mod fleet;
mod runtime_answers;
mod runtime_failures;
mod support;
