//! Who calls: the bearer secret, as its hash.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use ollama_coordinator_common::secret::{AgentSecret, SecretHash};

use super::error::ApiError;

/// The hash of the secret that came as a bearer token, when one came.
#[derive(Debug, Clone, Copy)]
pub struct Presented(pub Option<SecretHash>);

impl<S: Sync> FromRequestParts<S> for Presented {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get(AUTHORIZATION) else {
            return Ok(Self(None));
        };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        let secret = token.and_then(|token| token.parse::<AgentSecret>().ok());
        match secret {
            Some(secret) => Ok(Self(Some(secret.hash()))),
            None => Err(ApiError::field(
                "Authorization",
                "must be `Bearer` and a secret of 16 to 256 visible ASCII characters",
            )),
        }
    }
}
