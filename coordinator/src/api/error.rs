//! From domain errors to `application/problem+json`, logged once when the fault is ours.

use std::any::Any;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use ollama_coordinator_common::id::RequestId;
use ollama_coordinator_common::protocol::error::{
    ErrorCode, FieldError, PROBLEM_CONTENT_TYPE, Problem,
};
use ollama_coordinator_common::protocol::tunnel::PROTOCOL;

use super::address::AddressError;
use crate::registry::UpdateError;
use crate::registry::registration::RegisterError;
use crate::registry::table::{RenewError, TunnelError};
use crate::storage::writer::CommitError;

/// How long a caller should wait when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Every way in which the management API says no.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Fields break rules.
    #[error("the request breaks {} rule(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// The address must not be dialled.
    #[error("the address is not allowed")]
    Address(#[source] AddressError),
    /// There is no such agent.
    #[error("no agent has this id")]
    UnknownAgent,
    /// There is no such request.
    #[error("no request has this id")]
    UnknownRequest,
    /// The request does not run any more.
    #[error("the request has ended")]
    RequestEnded,
    /// The secret is missing or another one.
    #[error("the secret that belongs to this agent was not presented")]
    WrongSecret,
    /// Another live process uses the id.
    #[error("another live process uses this id")]
    DuplicateIdentity,
    /// The agent's version is not understood.
    #[error("the agent is too old")]
    AgentTooOld(String),
    /// The registry is full.
    #[error("the registry holds {0} agents, the most it may")]
    RegistryFull(usize),
    /// The change is not durable and was not made.
    #[error("failed to store the change")]
    Storage(#[source] CommitError),
    /// The body is too large.
    #[error("the body is larger than {0} bytes")]
    PayloadTooLarge(usize),
    /// The body did not arrive in time.
    #[error("the body did not arrive in time")]
    BodyTimeout,
    /// The body has another type.
    #[error("the body is not JSON")]
    UnsupportedMediaType,
    /// There is nothing at this path.
    #[error("there is nothing at this path")]
    NotFound,
    /// Only for connections that become a tunnel.
    #[error("this path is for connections that become a tunnel")]
    UpgradeRequired,
    /// Not with this method.
    #[error("this path does not take this method")]
    MethodNotAllowed,
    /// A defect.
    #[error("internal error: {0}")]
    Internal(String),
}

impl ApiError {
    /// Makes the error of one field.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldError {
            field: field.into(),
            detail: detail.into(),
        }])
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) | Self::Address(_) | Self::AgentTooOld(_) => StatusCode::BAD_REQUEST,
            Self::UnknownAgent | Self::UnknownRequest | Self::NotFound => StatusCode::NOT_FOUND,
            Self::WrongSecret => StatusCode::FORBIDDEN,
            Self::DuplicateIdentity | Self::RequestEnded => StatusCode::CONFLICT,
            Self::RegistryFull(_) | Self::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::PayloadTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns the stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidRequest,
            Self::Address(_) => ErrorCode::AddressNotAllowed,
            Self::UnknownAgent => ErrorCode::UnknownAgent,
            Self::UnknownRequest => ErrorCode::UnknownRequest,
            Self::RequestEnded => ErrorCode::RequestEnded,
            Self::WrongSecret => ErrorCode::WrongSecret,
            Self::DuplicateIdentity => ErrorCode::DuplicateIdentity,
            Self::AgentTooOld(_) => ErrorCode::AgentTooOld,
            Self::RegistryFull(_) => ErrorCode::RegistryFull,
            Self::Storage(_) => ErrorCode::StorageUnavailable,
            Self::PayloadTooLarge(_) => ErrorCode::PayloadTooLarge,
            Self::BodyTimeout => ErrorCode::RequestTimeout,
            Self::UnsupportedMediaType => ErrorCode::UnsupportedMediaType,
            Self::NotFound => ErrorCode::NotFound,
            Self::UpgradeRequired => ErrorCode::UpgradeRequired,
            Self::MethodNotAllowed => ErrorCode::MethodNotAllowed,
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "The request is invalid",
            Self::Address(_) => "The address is not allowed",
            Self::UnknownAgent => "No agent has this id",
            Self::UnknownRequest => "No request has this id",
            Self::RequestEnded => "The request has ended",
            Self::WrongSecret => "Wrong secret",
            Self::DuplicateIdentity => "Another live process uses this id",
            Self::AgentTooOld(_) => "The agent is too old",
            Self::RegistryFull(_) => "The registry is full",
            Self::Storage(_) => "The change could not be stored",
            Self::PayloadTooLarge(_) => "The body is too large",
            Self::BodyTimeout => "The body did not arrive in time",
            Self::UnsupportedMediaType => "The body is not JSON",
            Self::NotFound => "Nothing at this path",
            Self::UpgradeRequired => "Upgrade required",
            Self::MethodNotAllowed => "Method not allowed",
            Self::Internal(_) => "Internal error",
        }
    }

    /// Returns how long the caller should wait before it tries again.
    fn retry_after(&self) -> Option<Duration> {
        if let Self::Storage(CommitError::BackingOff { retry_in, .. }) = self {
            return Some(*retry_in);
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER)
    }

    /// Returns what happened and what the caller can do; never what caused a fault of ours.
    fn detail(&self) -> String {
        match self {
            Self::Invalid(errors) => {
                let errors = errors.iter().map(|e| format!("{}: {}", e.field, e.detail));
                errors.collect::<Vec<_>>().join("; ")
            }
            Self::Address(error) => error.to_string(),
            Self::UnknownAgent => {
                "No agent has this id. An agent registers again, with the same id.".to_owned()
            }
            Self::UnknownRequest => {
                "The request log holds the latest requests only (--request-log).".to_owned()
            }
            Self::RequestEnded => "Only a request that runs can be cancelled.".to_owned(),
            Self::WrongSecret => "This agent proves itself with a secret (Authorization: Bearer), \
                and another one or none was presented."
                .to_owned(),
            Self::DuplicateIdentity => "Another live process uses this id, as after copying a \
                disk. Make a new id and register with that."
                .to_owned(),
            Self::AgentTooOld(detail) => detail.clone(),
            Self::RegistryFull(most) => format!("It holds {most} agents. Remove some."),
            Self::Storage(_) => "Nothing was changed. The coordinator keeps trying to reach its \
                disk; try again in a moment."
                .to_owned(),
            Self::PayloadTooLarge(limit) => format!("At most {limit} bytes are taken here."),
            Self::BodyTimeout => "Send the whole body within 10 seconds.".to_owned(),
            Self::UnsupportedMediaType => {
                "Send JSON with `Content-Type: application/json`.".to_owned()
            }
            Self::NotFound => "GET /api/openapi.json lists what there is.".to_owned(),
            Self::UpgradeRequired => {
                format!("Send `Connection: upgrade` and `Upgrade: {PROTOCOL}`.")
            }
            Self::MethodNotAllowed => "The `Allow` header lists the methods.".to_owned(),
            Self::Internal(_) => {
                "This is a defect of the coordinator; its log has this request_id.".to_owned()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let status = self.status();
        let request_id = RequestId::new();
        if status.is_server_error() {
            tracing::error!(
                request.id = %request_id, status = status.as_u16(),
                error = &self as &dyn std::error::Error, "Request failed"
            );
        }
        let retry_after = self.retry_after();
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.title().to_owned(),
            status: status.as_u16(),
            detail: self.detail(),
            code: self.code(),
            request_id,
            errors: if let Self::Invalid(errors) = self {
                errors
            } else {
                Vec::new()
            },
        };
        let body = serde_json::to_vec(&problem).expect("a problem serialises");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(PROBLEM_CONTENT_TYPE),
        );
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        }
        if let Some(after) = retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::WrongSecret => Self::WrongSecret,
            RegisterError::DuplicateIdentity => Self::DuplicateIdentity,
            RegisterError::Full(most) => Self::RegistryFull(most),
            RegisterError::NotDurable(source) => Self::Storage(source),
        }
    }
}

impl From<RenewError> for ApiError {
    fn from(error: RenewError) -> Self {
        match error {
            RenewError::UnknownAgent => Self::UnknownAgent,
            RenewError::WrongSecret => Self::WrongSecret,
            RenewError::DuplicateIdentity => Self::DuplicateIdentity,
        }
    }
}

impl From<TunnelError> for ApiError {
    fn from(error: TunnelError) -> Self {
        match error {
            TunnelError::Unproven(error) => error.into(),
            TunnelError::Direct => Self::field(
                "link",
                "this agent registered an address to be dialled; register it with `tunnel`",
            ),
        }
    }
}

impl From<UpdateError> for ApiError {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::UnknownAgent => Self::UnknownAgent,
            UpdateError::WrongSecret => Self::WrongSecret,
            UpdateError::NotDurable(source) => Self::Storage(source),
        }
    }
}

/// Answers a known path with an unknown method.
pub async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}

/// Answers for a handler that panicked.
#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
pub fn panicked(panic: Box<dyn Any + Send>) -> Response<Body> {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    ApiError::Internal(text.unwrap_or_else(|| "a handler panicked".to_owned())).into_response()
}
