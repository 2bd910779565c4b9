//! Durable storage against real files, failing files and simulated power loss.

mod support;

mod conformance;
mod power_loss;
