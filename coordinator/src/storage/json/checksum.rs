//! The checksum that is stored beside what it covers.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};

pub(super) const PREFIX: &str = "crc32:";
pub(super) const DIGITS: usize = 8;

/// Tells one text from another that damage or another time made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checksum(u32);

impl Checksum {
    /// Returns the checksum of all parts in a row.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        for part in parts {
            hasher.update(part);
        }
        Self(hasher.finalize())
    }

    /// Reads what [`fmt::Display`] writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX)?;
        let is_whole = digits.len() == DIGITS;
        let value = u32::from_str_radix(digits, 16).ok()?;
        is_whole.then_some(Self(value))
    }

    /// Returns it without its prefix.
    pub(super) fn digits(self) -> String {
        format!("{:0DIGITS$x}", self.0)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.digits())
    }
}

impl<'de> Deserialize<'de> for Checksum {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("it is not a checksum"))
    }
}
