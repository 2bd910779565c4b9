//! A journal made to say that it follows another file.

use std::fmt::Write as _;

use serde_json::Value;

/// Returns `journal` as if it followed `file`, which is of `generation`; nothing when it is not
/// whole.
pub(crate) fn rebind(journal: &[u8], generation: u64, file: &str) -> Option<Vec<u8>> {
    let text = str::from_utf8(journal).ok()?;
    let (_, checksum) = file.split_once("\"checksum\": \"")?;
    let (checksum, _) = checksum.split_once('"')?;
    let mut rebound = String::new();
    let mut reached = generation;
    for line in text.split_inclusive('\n') {
        if !line.starts_with("{\"checksum\"") {
            rebound.push_str(line);
            continue;
        }
        let first: Value = serde_json::from_str(line).ok()?;
        reached += 1;
        let covered = format!(
            "\",\"schema_version\":1,\"follows\":{generation},\"file\":\"{checksum}\",\
             \"generation\":{reached},\"saved_at\":{},\"bytes\":{},\"changes\":{}}}",
            first["saved_at"], first["bytes"], first["changes"],
        );
        let sealed = crc32fast::hash(covered.as_bytes());
        writeln!(rebound, "{{\"checksum\":\"crc32:{sealed:08x}{covered}").unwrap();
    }
    Some(rebound.into_bytes())
}
