//! What the coordinator and the agent both use today, and nothing else.
//!
//! Read in this order: [`id`] and [`secret`] (who is who), [`protocol`] (every JSON shape on the
//! wire), [`base_url`], [`dial`] and [`http`] (one control connection), [`probe`] (asks a runtime what it serves), [`backoff`],
//! [`duration`], [`atomic_file`], [`version`], [`doctor`] (what is wrong, layer by layer), then the process parts
//! [`shutdown`], [`tasks`] and [`logging`], then what both command lines have: [`commands`] and [`service`].
#![warn(missing_docs)]

pub mod atomic_file;
pub mod backoff;
pub mod base_url;
pub mod commands;
pub mod dial;
pub mod doctor;
pub mod duration;
pub mod http;
pub mod id;
pub mod logging;
pub mod name;
pub mod probe;
pub mod protocol;
pub mod secret;
pub mod service;
pub mod shutdown;
pub mod tasks;
pub mod version;
