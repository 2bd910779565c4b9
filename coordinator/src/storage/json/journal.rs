//! The journal's format: one frame per batch, all of it JSON, a value to a line.
//!
//! A frame's first line says which file it follows, how long its changes are and what their
//! checksum is, under a checksum of its own; a change to a line comes after it. So a frame that
//! was cut off while it was written can be told from one that was damaged later.

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};
use ollama_coordinator_common::id::AgentId;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::checksum::{self, Checksum};
use super::{RecordChange, document};

/// How each frame begins, up to its checksum's digits.
const BEGINNING: &str = "{\"checksum\":\"crc32:";

/// A file as the frames that follow it name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) generation: u64,
    pub(super) checksum: Checksum,
}

/// Returns the text of a batch that leads to `generation`.
pub(super) fn frame(
    base: Base,
    (generation, saved_at): (u64, DateTime<Utc>),
    changes: &[RecordChange],
) -> Vec<u8> {
    let mut body = String::new();
    for (id, record) in changes {
        match record {
            Some(record) => {
                body.push_str("{\"put\":");
                // Line breaks are never inside the strings of a record.
                body.extend(record.lines().map(str::trim_start));
                body.push_str("}\n");
            }
            None => {
                writeln!(body, "{{\"remove\":\"{id}\"}}").expect("writing to memory cannot fail");
            }
        }
    }
    let saved_at = saved_at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let covered = format!(
        "\",\"schema_version\":{},\"follows\":{},\"file\":\"{}\",\"generation\":{generation},\
         \"saved_at\":\"{saved_at}\",\"bytes\":{},\"changes\":\"{}\"}}",
        document::SCHEMA_VERSION,
        base.generation,
        base.checksum,
        body.len(),
        Checksum::of(&[body.as_bytes()]),
    );
    let digits = Checksum::of(&[covered.as_bytes()]).digits();
    body.insert_str(0, &format!("{BEGINNING}{digits}{covered}\n"));
    body.into_bytes()
}

/// A journal as it was read; the records are not looked into.
#[derive(Debug, Default)]
pub(super) struct Journal<'a> {
    /// Frames that are whole, in the order of the file.
    pub(super) frames: Vec<Frame<'a>>,
    /// Bytes at the end of a batch that was never acknowledged.
    pub(super) torn: usize,
    /// Whether something was damaged after it had been written.
    pub(super) is_damaged: bool,
}

/// A batch.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) base: Base,
    pub(super) generation: u64,
    pub(super) saved_at: DateTime<Utc>,
    pub(super) changes: Vec<Entry<'a>>,
}

/// One change of a batch.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry<'a> {
    #[serde(borrow)]
    Put(&'a RawValue),
    Remove(AgentId),
}

/// A newer coordinator wrote the journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NewerSchema {
    pub(super) found: u64,
}

/// Reads a whole journal.
///
/// # Errors
/// It is newer than this coordinator.
pub(super) fn parse(bytes: &[u8]) -> Result<Journal<'_>, NewerSchema> {
    let mut journal = Journal::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match read(rest)? {
            Piece::Whole(frame, after) => {
                journal.frames.push(frame);
                rest = after;
            }
            piece @ (Piece::Cut | Piece::Wrong) => match next_whole(rest)? {
                Some(next) => {
                    journal.is_damaged = true;
                    rest = next;
                }
                None if piece.is_cut() || was_never_written(rest) => {
                    journal.torn = rest.len();
                    break;
                }
                None => {
                    journal.is_damaged = true;
                    break;
                }
            },
        }
    }
    Ok(journal)
}

enum Piece<'a> {
    Whole(Frame<'a>, &'a [u8]),
    /// A frame that would go on where the journal ends.
    Cut,
    Wrong,
}

impl Piece<'_> {
    fn is_cut(&self) -> bool {
        match self {
            Self::Cut => true,
            Self::Whole(..) | Self::Wrong => false,
        }
    }
}

#[derive(Deserialize)]
struct FirstLine {
    follows: u64,
    file: Checksum,
    generation: u64,
    saved_at: DateTime<Utc>,
    bytes: usize,
    changes: Checksum,
}

fn read(bytes: &[u8]) -> Result<Piece<'_>, NewerSchema> {
    let Some((line, rest)) = split_line(bytes) else {
        return Ok(Piece::Cut);
    };
    if !is_sealed(line) {
        return Ok(Piece::Wrong);
    }
    refuse_newer(line)?;
    let Ok(first) = serde_json::from_slice::<FirstLine>(line) else {
        return Ok(Piece::Wrong);
    };
    let Some((body, after)) = rest.split_at_checked(first.bytes) else {
        return Ok(Piece::Cut);
    };
    if Checksum::of(&[body]) != first.changes {
        return Ok(Piece::Wrong);
    }
    let Some(changes) = entries(body) else {
        return Ok(Piece::Wrong);
    };
    let frame = Frame {
        base: Base {
            generation: first.follows,
            checksum: first.file,
        },
        generation: first.generation,
        saved_at: first.saved_at,
        changes,
    };
    Ok(Piece::Whole(frame, after))
}

/// Returns whether the line begins as a frame does and its checksum is right.
fn is_sealed(line: &[u8]) -> bool {
    let text = line
        .strip_prefix(BEGINNING.as_bytes())
        .and_then(|rest| rest.split_at_checked(checksum::DIGITS));
    text.is_some_and(|(digits, covered)| {
        Checksum::of(&[covered]).digits().as_bytes() == digits.to_ascii_lowercase()
    })
}

fn refuse_newer(line: &[u8]) -> Result<(), NewerSchema> {
    #[derive(Deserialize)]
    struct Version {
        schema_version: u64,
    }
    match serde_json::from_slice(line) {
        Ok(Version { schema_version }) if schema_version > document::SCHEMA_VERSION => {
            Err(NewerSchema {
                found: schema_version,
            })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn entries(body: &[u8]) -> Option<Vec<Entry<'_>>> {
    let text = str::from_utf8(body).ok()?;
    let entries = text.lines().map(|line| serde_json::from_str(line).ok());
    entries.collect()
}

/// Returns what begins with the first whole frame after the one that `bytes` begin with.
fn next_whole(bytes: &[u8]) -> Result<Option<&[u8]>, NewerSchema> {
    let mut rest = bytes;
    while let Some((_, after)) = split_line(rest) {
        rest = after;
        if let Piece::Whole(..) = read(rest)? {
            return Ok(Some(rest));
        }
    }
    Ok(None)
}

/// Blocks that power loss kept from the disk read as zeroes; one flipped bit makes but one.
fn was_never_written(bytes: &[u8]) -> bool {
    bytes.ends_with(&[0]) || bytes.windows(2).any(|pair| pair == [0, 0])
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((line, &rest[1..]))
}
