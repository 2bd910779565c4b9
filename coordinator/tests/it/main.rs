//! The coordinator as others see it: over real sockets, with real files, mostly in-process and,
//! where a process has to die, be paused or be refused, as the real binary.

mod support;

mod cli;
mod clock;
mod crash;
mod events;
mod expiry;
mod fleet;
mod heartbeat;
mod limits;
mod list;
mod openapi;
mod passing;
mod persistence;
mod proxy;
mod reach;
mod register;
mod system;
