//! The coordinator: one URL for every machine that runs a language model.
#![warn(missing_docs)]

pub mod storage;
