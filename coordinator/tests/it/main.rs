//! The coordinator as others see it: over real sockets, with real files, mostly in-process and,
//! where a process has to die, be paused or be refused, as the real binary.
#![cfg(unix)]

mod support;

mod accounts;
mod balancing;
mod cancelling;
mod cli;
mod clock;
mod conformance;
mod crash;
mod dashboard;
mod data_dir;
mod doctor;
mod early;
mod events;
mod expiry;
mod fleet;
mod heartbeat;
mod killing;
mod limits;
#[cfg(target_os = "linux")]
mod links;
mod list;
mod lists;
mod machines;
mod openapi;
mod passing;
mod pause;
mod persistence;
mod proxy;
mod proxy_failures;
mod reach;
mod refusals;
mod register;
mod requests;
mod retry;
mod routes;
#[cfg(target_os = "linux")]
mod service;
mod settings;
mod shell;
#[cfg(target_os = "linux")]
mod soak;
mod stop;
#[cfg(target_os = "linux")]
mod stops;
mod system;
mod telemetry;
mod tunnel;
mod tunnel_fairness;
#[cfg(target_os = "linux")]
mod world;
