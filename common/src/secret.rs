//! The agent's secret and the only thing the coordinator keeps of it: its hash.

use std::fmt;
use std::str::FromStr;

use rand::RngCore as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

const SECRET_BYTES: usize = 32;
const HASH_PREFIX: &str = "sha256:";

/// A random secret that proves an agent's identity. Its `Debug` shows nothing.
#[derive(Clone)]
pub struct AgentSecret(String);

impl AgentSecret {
    /// Makes a new secret of 256 random bits.
    pub fn generate() -> Self {
        let mut bytes = [0; SECRET_BYTES];
        rand::rng().fill_bytes(&mut bytes);
        Self(hex(&bytes))
    }

    /// Returns the text to send as a bearer token or to store with mode 0600; never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns what a coordinator stores instead of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl fmt::Debug for AgentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentSecret(redacted)")
    }
}

impl FromStr for AgentSecret {
    type Err = InvalidSecret;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usable = (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if usable {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSecret)
        }
    }
}

/// A secret is 16 to 256 visible ASCII characters.
#[derive(Debug, thiserror::Error)]
#[error("a secret is 16 to 256 visible ASCII characters")]
pub struct InvalidSecret;

/// The SHA-256 of an [`AgentSecret`]; the secret has 256 random bits, so no salt is needed.
#[derive(Clone, Copy, Eq)]
pub struct SecretHash([u8; 32]);

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(redacted)")
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HASH_PREFIX}{}", hex(&self.0))
    }
}

impl FromStr for SecretHash {
    type Err = InvalidSecretHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix(HASH_PREFIX).ok_or(InvalidSecretHash)?;
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(InvalidSecretHash);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_not_utf8| InvalidSecretHash)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_not_hex| InvalidSecretHash)?;
        }
        Ok(Self(hash))
    }
}

/// The text is not `sha256:` and 64 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a secret hash is `sha256:` and 64 hexadecimal digits")]
pub struct InvalidSecretHash;

impl Serialize for SecretHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_is_known_again_by_its_hash_only() {
        let secret = AgentSecret::generate();
        let stored: SecretHash = secret.hash().to_string().parse().unwrap();

        assert_eq!(stored, secret.hash());
        assert_ne!(stored, AgentSecret::generate().hash());
    }

    #[test]
    fn secret_never_shows_in_debug_output() {
        let secret = AgentSecret::generate();

        let shown = format!("{secret:?} {:?}", secret.hash());

        assert!(!shown.contains(secret.expose()), "{shown}");
        assert_eq!(shown, "AgentSecret(redacted) SecretHash(redacted)");
    }

    #[test]
    fn malformed_hashes_are_refused() {
        for text in [
            "",
            "sha256:",
            "sha256:zz",
            "md5:00",
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(text.parse::<SecretHash>().is_err(), "{text}");
        }
    }
}
