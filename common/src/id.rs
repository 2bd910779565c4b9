//! Ids as types of their own, so that one cannot be passed for another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! uuid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
        )]
        #[serde(transparent)]
        #[schema(value_type = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new random id.
            #[expect(clippy::new_without_default, reason = "a random value is not a default")]
            pub fn new() -> Self {
                Self(Uuid::new_v4())
            }

            /// Makes an id from a number, for tests and simulations that want stable ids.
            pub const fn from_u128(value: u128) -> Self {
                Self(Uuid::from_u128(value))
            }
        }

        impl $name {
            /// Writes the id into `buffer`, as [`fmt::Display`] does, but without formatting.
            pub fn encode<'a>(&self, buffer: &'a mut [u8; 36]) -> &'a str {
                self.0.hyphenated().encode_lower(buffer)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_newtype! {
    /// Names one agent for ever; made by the agent before it first registers.
    AgentId
}
uuid_newtype! {
    /// Names one run of an agent process, so that two processes with one id can be told apart.
    SessionId
}
uuid_newtype! {
    /// Names one run of a coordinator process, so that agents notice a restart.
    InstanceId
}
uuid_newtype! {
    /// Names one request, in logs, error bodies and response headers.
    RequestId
}
