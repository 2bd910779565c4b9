//! Error bodies of the management API: RFC 9457 problem details with a stable code.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::RequestId;

/// The media type of a [`Problem`].
pub const PROBLEM_CONTENT_TYPE: &str = "application/problem+json";

/// What went wrong, for programs. Texts may change, codes do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request cannot be understood or breaks a rule; `errors` names the fields.
    InvalidRequest,
    /// The address in a registration is one the coordinator will not dial.
    AddressNotAllowed,
    /// No agent has this id: register again, with the same id.
    UnknownAgent,
    /// The request log has no request of this id: it was never there, or it is too long ago.
    UnknownRequest,
    /// The request has ended, so it cannot be cancelled.
    RequestEnded,
    /// The id is known and the secret that belongs to it was not presented.
    WrongSecret,
    /// Another live process uses this id: make a new one.
    DuplicateIdentity,
    /// The agent is older than the oldest one that the coordinator understands: update it.
    AgentTooOld,
    /// The registry holds as many agents as it may.
    RegistryFull,
    /// The change could not be made durable and was not made.
    StorageUnavailable,
    /// The body is larger than allowed.
    PayloadTooLarge,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// There is nothing at this path.
    NotFound,
    /// This path is only for connections that become something else.
    UpgradeRequired,
    /// The path exists, but not with this method.
    MethodNotAllowed,
    /// The caller must slow down.
    TooManyRequests,
    /// The coordinator is stopping or not ready yet.
    Unavailable,
    /// A defect of the coordinator.
    Internal,
    /// A code this version does not know.
    #[serde(other)]
    Unrecognised,
}

impl fmt::Display for ErrorCode {
    /// Writes the code, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// One error, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind of problem in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time and what can be done.
    pub detail: String,
    /// The kind of problem, for programs.
    pub code: ErrorCode,
    /// Names the request in the coordinator's log.
    pub request_id: RequestId,
    /// The fields at fault, when the request was invalid.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Path of the field in the request, such as `runtime.models[2].name`.
    pub field: String,
    /// The rule and how it was broken.
    pub detail: String,
}
