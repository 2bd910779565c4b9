//! One file per subject; each shows its own rows.

pub(crate) mod agent;
pub(crate) mod cadence;
pub(crate) mod detection;
pub(crate) mod heartbeats;
pub(crate) mod instructions;
pub(crate) mod lists;
pub(crate) mod memory;
pub(crate) mod peers;
pub(crate) mod policies;
pub(crate) mod proxy;
pub(crate) mod registrations;
pub(crate) mod restart;
pub(crate) mod scale;
pub(crate) mod tunnel;
