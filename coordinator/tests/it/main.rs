//! The coordinator as others see it: over real sockets, with real files, mostly in-process and,
//! where a process has to die, be paused or be refused, as the real binary.

mod support;

mod fleet;
mod heartbeat;
mod list;
mod register;
