//! What a request asks for: a peek at the model, the bytes kept as they came.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Uri};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt as _;
use ollama_coordinator_common::id::AgentId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ProxyError;
use super::peek::Peek;

/// The most bytes a request may have: images travel in it as base64.
pub const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// The most bytes of bodies that are held at once, small ones not counted.
const MAX_HELD_BYTES: usize = 1024 * 1024 * 1024;
/// How finely memory is counted.
const PAGE: usize = 64 * 1024;
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
    /// The memory that the body takes.
    pub held: HeldMemory,
}

/// How much memory all bodies that are held take at most; shared by all requests.
#[derive(Debug, Clone)]
pub struct BodyMemory(Arc<Semaphore>);

/// Memory for a body, given back when dropped.
#[derive(Debug)]
pub struct HeldMemory(Option<OwnedSemaphorePermit>);

impl Default for BodyMemory {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_HELD_BYTES / PAGE)))
    }
}

impl BodyMemory {
    /// Makes room for a body of `size` bytes; small ones are not counted.
    fn grow(&self, held: &mut HeldMemory, size: usize) -> Result<(), ProxyError> {
        let has = held.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = (size / PAGE).saturating_sub(has);
        if missing == 0 {
            return Ok(());
        }
        let pages = u32::try_from(missing).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.0).try_acquire_many_owned(pages);
        let more = more.map_err(|_none_left| ProxyError::NoMemory)?;
        match &mut held.0 {
            Some(held) => held.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

/// Reads a body into memory. Most arrive in one piece, which is not copied.
pub async fn collect<B>(mut body: B, memory: &BodyMemory) -> Result<(Bytes, HeldMemory), ProxyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut held = HeldMemory(None);
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
        let size = first.len() + whole.len() + data.len();
        if size > MAX_BODY_BYTES {
            return Err(ProxyError::TooLarge);
        }
        memory.grow(&mut held, size)?;
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
    let body = if whole.is_empty() {
        first
    } else {
        whole.freeze()
    };
    Ok((body, held))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    async fn collected(
        sizes: &[usize],
        memory: &BodyMemory,
    ) -> Result<(Bytes, HeldMemory), ProxyError> {
        let chunks = sizes.iter().map(|size| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; *size])))
        });
        collect(
            StreamBody::new(stream::iter(chunks.collect::<Vec<_>>())),
            memory,
        )
        .await
    }

    #[tokio::test]
    async fn body_in_pieces_arrives_whole_and_gives_its_memory_back() {
        let memory = BodyMemory::default();
        let all = memory.0.available_permits();

        let (body, held) = collected(&[1, PAGE, 7, 3 * PAGE], &memory).await.unwrap();

        assert_eq!(body.len(), 4 * PAGE + 8);
        assert_eq!(memory.0.available_permits(), all - 4);
        drop(held);
        assert_eq!(memory.0.available_permits(), all);
    }

    #[tokio::test]
    async fn body_for_which_there_is_no_memory_is_refused() {
        let memory = BodyMemory(Arc::new(Semaphore::new(2)));
        let (_body, _held) = collected(&[2 * PAGE], &memory).await.unwrap();

        assert!(collected(&[PAGE - 1], &memory).await.is_ok());
        let refused = collected(&[PAGE], &memory).await;
        assert!(matches!(refused, Err(ProxyError::NoMemory)), "{refused:?}");
    }

    #[tokio::test]
    async fn endless_body_is_refused() {
        let memory = BodyMemory::default();
        let halves = [MAX_BODY_BYTES / 2, MAX_BODY_BYTES / 2, 1];

        let refused = collected(&halves, &memory).await;

        assert!(matches!(refused, Err(ProxyError::TooLarge)), "{refused:?}");
    }
}
