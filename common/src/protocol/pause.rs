//! A machine whose owner wants it to take no requests for now.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The agent is paused on its machine: it is to get no requests until a message comes without this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Paused {
    /// Milliseconds until it ends by itself; absent: when somebody there ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
}
