//! What the binary does besides serving: it asks a running coordinator.

pub mod agents;
pub mod ask;
pub mod doctor;
