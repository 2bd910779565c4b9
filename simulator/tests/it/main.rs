//! The simulator against real sockets.

mod fake_coordinator;
mod fault_proxy;
mod fleet;
mod runtime_answers;
mod runtime_failures;
mod runtime_library;
mod runtime_protocols;
mod support;
