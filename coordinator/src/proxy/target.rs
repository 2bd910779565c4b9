//! What a request asks for: a peek at the model, the bytes kept as they came.

use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use ollama_coordinator_common::id::AgentId;

use super::error::ProxyError;
use super::peek::Peek;

/// The most bytes a request may have: images travel in it as base64.
pub const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// How long a request body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(30);

/// A request that can be sent, and sent again.
#[derive(Debug)]
pub struct Target {
    /// What it asks for.
    pub peek: Peek,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
    /// Its headers as agents get them.
    pub headers: HeaderMap,
    /// The agents that the client named; empty: any may answer.
    pub only: Vec<AgentId>,
    /// Its body, untouched.
    pub body: Bytes,
}

/// Reads a body into memory. Most arrive in one piece, which is not copied.
pub async fn collect<B>(mut body: B) -> Result<Bytes, ProxyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let declared = body.size_hint().lower();
    if declared > MAX_BODY_BYTES as u64 {
        return Err(ProxyError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while !body.is_end_stream() {
        let next = tokio::time::timeout(BODY_PAUSE, body.frame()).await;
        let Some(frame) = next.map_err(|_elapsed| ProxyError::BodyPaused(BODY_PAUSE))? else {
            break;
        };
        let Ok(frame) = frame else {
            return Err(ProxyError::BadBody("the body did not arrive whole"));
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.len() + whole.len() + data.len() > MAX_BODY_BYTES {
            return Err(ProxyError::TooLarge);
        }
        if first.is_empty() && whole.is_empty() {
            first = data;
        } else {
            if whole.is_empty() {
                whole.extend_from_slice(&first);
                first.clear();
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}
