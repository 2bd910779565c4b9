//! Files on their way into a model: their digests are checked and remembered, their bytes are not.

use std::collections::BTreeSet;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::reply::{ApiError, Reply};
use super::routes::Call;

const MOST_BLOBS: usize = 1024;
const HEX_DIGITS: usize = 64;

/// The digests of the files that were uploaded.
#[derive(Debug, Default)]
pub(super) struct Blobs(Mutex<BTreeSet<String>>);

impl Blobs {
    pub(super) fn has(&self, digest: &str) -> bool {
        self.0.lock().contains(&canonical(digest))
    }

    fn keep(&self, digest: String) -> Result<(), ApiError> {
        let mut digests = self.0.lock();
        if digests.len() == MOST_BLOBS {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            return Err(ApiError::new(status, "no space left on device"));
        }
        digests.insert(digest);
        Ok(())
    }
}

/// Reads an upload to its end and returns its digest; `None` when the client broke off.
pub(super) async fn digest_of(mut body: Incoming) -> Option<String> {
    let mut hash = Sha256::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            hash.update(&data);
        }
    }
    Some(format!("sha256:{:x}", hash.finalize()))
}

/// Keeps an upload whose digest is `uploaded` if it was announced as `digest`.
pub(super) fn put(call: &Call, digest: &str, uploaded: Option<&str>) -> Result<Reply, ApiError> {
    let digest = checked(digest)?;
    if call.engine.blobs.has(&digest) {
        return Ok(Reply::empty(StatusCode::OK));
    }
    let uploaded = uploaded.ok_or_else(|| ApiError::bad_request("unexpected EOF"))?;
    if uploaded != digest {
        return Err(ApiError::bad_request(format!(
            "digest mismatch, expected {digest:?}, got {uploaded:?}"
        )));
    }
    call.engine.blobs.keep(digest)?;
    Ok(Reply::empty(StatusCode::CREATED))
}

pub(super) fn head(call: &Call, digest: &str) -> Result<Reply, ApiError> {
    let digest = checked(digest)?;
    if call.engine.blobs.has(&digest) {
        return Ok(Reply::empty(StatusCode::OK));
    }
    let message = format!("blob {digest:?} not found");
    Err(ApiError::new(StatusCode::NOT_FOUND, message))
}

fn checked(digest: &str) -> Result<String, ApiError> {
    let digest = canonical(digest);
    let hex = digest.strip_prefix("sha256:");
    let is_valid = hex.is_some_and(|hex| {
        hex.len() == HEX_DIGITS && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    });
    if is_valid {
        Ok(digest)
    } else {
        Err(ApiError::bad_request("invalid digest format"))
    }
}

fn canonical(digest: &str) -> String {
    digest.replacen('-', ":", 1).to_ascii_lowercase()
}
