//! `GET /api/history`: the load of the last day.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How finely, and so for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// The last minutes.
    #[default]
    Fine,
    /// The last day or more.
    Coarse,
}

/// Numbers at moments that are equally far apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryView {
    /// From one moment to the next.
    pub step_ms: u64,
    /// How long is remembered.
    pub length_ms: u64,
    /// The moment of the last number; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<DateTime<Utc>>,
    /// The numbers by name; null where nothing is known.
    pub series: BTreeMap<String, Vec<Option<f32>>>,
}
