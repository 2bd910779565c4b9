//! Durable storage against real files, failing files and simulated power loss.

mod conformance;
