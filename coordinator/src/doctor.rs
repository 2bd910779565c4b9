//! What is wrong with this coordinator, or with one of its agents. Changes nothing.
//!
//! [`local`] looks at this machine and the running coordinator, [`one_agent`] at an agent from both
//! sides; what is said of the answers is decided purely ([`sides`]).

pub(crate) mod fleet;
pub(crate) mod local;
pub(crate) mod one_agent;
pub(crate) mod sides;
