//! The file format: a header, a checksum over everything else in the file, and one record per
//! agent, a field to a line, sorted by id.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat, Utc};
use ollama_coordinator_common::id::AgentId;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize as DeriveDeserialize, Serialize as _};
use serde_json::Value;
use serde_json::ser::Formatter;
use serde_json::value::RawValue;

use super::checksum::{self, Checksum};
use crate::storage::agent::StoredAgent;

/// The newest schema this coordinator reads, and the one it writes.
pub(super) const SCHEMA_VERSION: u64 = 1;

const FORMAT: &str = "agents";

/// Top-level fields that a newer coordinator wrote, as it wrote them.
pub(super) type Extra = BTreeMap<String, Box<RawValue>>;

/// What stands above the records.
pub(super) struct Header<'a> {
    pub(super) generation: u64,
    pub(super) saved_at: DateTime<Utc>,
    pub(super) extra: &'a Extra,
}

/// Returns the text of a whole file, and the checksum in it.
pub(super) fn render(
    header: &Header<'_>,
    records: &BTreeMap<AgentId, Box<str>>,
) -> (Vec<u8>, Checksum) {
    let size: usize = records.values().map(|record| record.len() + 8).sum();
    let mut bytes = Vec::with_capacity(size + 1024);
    let digits = header_text(header, &mut bytes).expect("writing to memory cannot fail");
    let mut separator = "\n    ";
    for record in records.values() {
        bytes.extend_from_slice(separator.as_bytes());
        bytes.extend_from_slice(record.as_bytes());
        separator = ",\n    ";
    }
    bytes.extend_from_slice(b"\n  ]\n}\n");

    let checksum = checksum_without(&bytes, digits);
    bytes[digits..digits + checksum::DIGITS].copy_from_slice(checksum.digits().as_bytes());
    (bytes, checksum)
}

/// Writes everything above the records; returns where the checksum's digits go.
fn header_text(header: &Header<'_>, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let Header {
        generation,
        saved_at,
        extra,
    } = header;
    let saved_at = saved_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    writeln!(bytes, "{{")?;
    writeln!(bytes, "  \"format\": \"{FORMAT}\",")?;
    writeln!(bytes, "  \"schema_version\": {SCHEMA_VERSION},")?;
    writeln!(bytes, "  \"generation\": {generation},")?;
    writeln!(bytes, "  \"saved_at\": \"{saved_at}\",")?;
    write!(bytes, "  \"checksum\": \"{}", checksum::PREFIX)?;
    let digits = bytes.len();
    writeln!(bytes, "{}\",", "0".repeat(checksum::DIGITS))?;
    for (name, value) in *extra {
        writeln!(bytes, "  {}: {value},", Value::from(name.as_str()))?;
    }
    write!(bytes, "  \"agents\": [")?;
    Ok(digits)
}

/// Returns the text of one record.
pub(super) fn record(agent: &StoredAgent) -> Result<Box<str>, serde_json::Error> {
    let mut text = Vec::with_capacity(1024);
    let formatter = FieldPerLine { depth: 0 };
    agent.serialize(&mut serde_json::Serializer::with_formatter(
        &mut text, formatter,
    ))?;
    let text = String::from_utf8(text).map_err(serde::ser::Error::custom)?;
    Ok(text.into_boxed_str())
}

/// A file as it was read; the records are not looked into.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) generation: u64,
    pub(super) saved_at: Option<DateTime<Utc>>,
    pub(super) extra: Extra,
    pub(super) records: Vec<&'a RawValue>,
    /// The file's checksum, which was right; absent when a person removed it to edit the file.
    pub(super) checksum: Option<Checksum>,
}

/// Reads a whole file.
///
/// # Errors
/// It is damaged, or newer than this coordinator.
pub(super) fn parse(bytes: &[u8]) -> Result<Document<'_>, DocumentError> {
    if bytes
        .iter()
        .all(|byte| byte.is_ascii_whitespace() || *byte == 0)
    {
        return Err(DocumentError::Empty);
    }
    let fields = match serde_json::from_slice::<Fields<'_>>(bytes) {
        Ok(fields) => fields,
        Err(error) => return Err(newer_schema(bytes).unwrap_or(DocumentError::Json(error))),
    };
    match (fields.format.as_deref(), fields.schema_version) {
        (Some(FORMAT), Some(SCHEMA_VERSION)) => {}
        (Some(FORMAT), Some(found)) if found > SCHEMA_VERSION => {
            return Err(DocumentError::NewerSchema { found });
        }
        _ => return Err(DocumentError::Format),
    }
    let checksum = fields.checksum.as_deref();
    let checksum = checksum.map(|claimed| verify(bytes, claimed)).transpose()?;
    Ok(Document {
        generation: fields.generation,
        saved_at: fields.saved_at,
        extra: fields.extra,
        records: fields.records.ok_or(DocumentError::Format)?,
        checksum,
    })
}

/// The file is not a registry that can be loaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("it is empty")]
    Empty,
    #[error("it is not whole ({0})")]
    Json(serde_json::Error),
    #[error("it is not an agents file")]
    Format,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its schema version is {found}")]
    NewerSchema { found: u64 },
}

fn verify(bytes: &[u8], claimed: &str) -> Result<Checksum, DocumentError> {
    let checksum = Checksum::parse(claimed);
    let at = bytes
        .windows(claimed.len())
        .position(|window| window == claimed.as_bytes());
    match (checksum, at) {
        (Some(checksum), Some(at))
            if checksum_without(bytes, at + checksum::PREFIX.len()) == checksum =>
        {
            Ok(checksum)
        }
        _ => Err(DocumentError::Checksum),
    }
}

/// Returns the checksum of everything but the checksum's own digits at `digits`.
fn checksum_without(bytes: &[u8], digits: usize) -> Checksum {
    let (before, rest) = bytes.split_at(digits);
    Checksum::of(&[before, &rest[checksum::DIGITS..]])
}

/// Returns an error when the file, unreadable as it is, says that it is from the future.
fn newer_schema(bytes: &[u8]) -> Option<DocumentError> {
    #[derive(DeriveDeserialize)]
    struct Version {
        schema_version: u64,
    }
    let Version { schema_version } = serde_json::from_slice(bytes).ok()?;
    (schema_version > SCHEMA_VERSION).then_some(DocumentError::NewerSchema {
        found: schema_version,
    })
}

/// The top level: known fields, each at most once, and all others as they are.
#[derive(Default)]
struct Fields<'a> {
    format: Option<String>,
    schema_version: Option<u64>,
    generation: u64,
    saved_at: Option<DateTime<Utc>>,
    checksum: Option<String>,
    records: Option<Vec<&'a RawValue>>,
    extra: Extra,
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a registry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if seen.contains(&name) {
                return Err(A::Error::custom("a field occurs twice"));
            }
            match name.as_str() {
                "format" => fields.format = Some(map.next_value()?),
                "schema_version" => fields.schema_version = Some(map.next_value()?),
                "generation" => fields.generation = map.next_value()?,
                "saved_at" => fields.saved_at = Some(map.next_value()?),
                "checksum" => fields.checksum = Some(map.next_value()?),
                "agents" if fields.schema_version > Some(SCHEMA_VERSION) => {
                    map.next_value::<IgnoredAny>()?;
                }
                "agents" => fields.records = Some(map.next_value()?),
                _ => {
                    fields.extra.insert(name.clone(), map.next_value()?);
                }
            }
            seen.push(name);
        }
        Ok(fields)
    }
}

/// Writes an object with one field per line and everything inside the fields compact.
struct FieldPerLine {
    depth: usize,
}

impl Formatter for FieldPerLine {
    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        writer.write_all(if self.depth == 0 { b"\n    }" } else { b"}" })
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        writer.write_all(match (self.depth, first) {
            (1, true) => b"\n      ",
            (1, false) => b",\n      ",
            (_, true) => b"",
            (_, false) => b",",
        })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(if self.depth == 1 { b": " } else { b":" })
    }
}
