//! `doctor` on both sides, against set-ups that are broken in one way each.

mod agent_side;
mod coordinator_side;
mod support;
