//! The coordinator: one URL for every machine that runs a language model.
//!
//! Read in this order: [`config`] (what can be set), [`app`] (the only wiring), [`server`] (the
//! accept loop), [`api`] (the management routes), [`registry`] (who is known, alive and routable),
//! [`reach`] (dials agents back), [`storage`] (what survives), [`balancer`] and [`proxy`] (a
//! request on its way to a model), [`commands`] (the command line beside serving), `doctor` (what is
//! wrong).
#![warn(missing_docs)]

pub mod api;
pub mod app;
pub mod balancer;
pub mod banner;
pub mod commands;
pub mod config;
pub mod dashboard;
mod doctor;
pub mod feed;
pub mod history;
pub mod proxy;
pub mod reach;
pub mod registry;
mod seldom;
pub mod server;
mod stall;
pub mod state;
pub mod storage;

pub use app::{STOPS_WITHIN, run};
pub use config::Config;
