//! What a request asks for: a peek at the model, the bytes kept as they came.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, Uri};
use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::{BodyExt as _, Full};
use ollama_coordinator_common::id::AgentId;
use parking_lot::Mutex;

use super::error::ProxyError;
use super::peek::Peek;
use super::upstream::RequestBody;

/// The most bytes a request may have: images travel in it as base64.
pub const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// The most bytes of bodies that are held at once, small ones not counted.
const MAX_HELD_BYTES: usize = 1024 * 1024 * 1024;
/// One client gets at most this part of them, so that it cannot keep all others out.
const SHARE: usize = 4;
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
pub struct BodyMemory(Arc<Mutex<Pages>>);

/// The pages that are free, and those that each client holds.
#[derive(Debug)]
struct Pages {
    free: usize,
    share: usize,
    held: HashMap<u64, usize>,
}

/// Memory for a client's body, given back when dropped.
#[derive(Debug)]
pub struct HeldMemory {
    memory: BodyMemory,
    client: u64,
    pages: usize,
}

impl Target {
    /// Makes the request that is sent to an agent.
    pub fn request(&self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Whole(Full::new(self.body.clone())));
        request.method_mut().clone_from(&self.method);
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        request
    }
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self::of(MAX_HELD_BYTES / PAGE)
    }
}

impl BodyMemory {
    fn of(pages: usize) -> Self {
        Self(Arc::new(Mutex::new(Pages {
            free: pages,
            share: pages / SHARE,
            held: HashMap::new(),
        })))
    }
}

impl HeldMemory {
    fn none(memory: &BodyMemory, client: u64) -> Self {
        Self {
            memory: memory.clone(),
            client,
            pages: 0,
        }
    }

    /// Makes room for a body of `size` bytes; small ones are not counted.
    fn grow(&mut self, size: usize) -> Result<(), ProxyError> {
        let missing = (size / PAGE).saturating_sub(self.pages);
        if missing == 0 {
            return Ok(());
        }
        let mut pages = self.memory.0.lock();
        let has = pages.held.get(&self.client).copied().unwrap_or(0);
        if has + missing > pages.share {
            return Err(ProxyError::ShareUsed);
        }
        let free = pages.free.checked_sub(missing);
        pages.free = free.ok_or(ProxyError::NoMemory)?;
        pages.held.insert(self.client, has + missing);
        self.pages += missing;
        Ok(())
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        if self.pages == 0 {
            return;
        }
        let mut pages = self.memory.0.lock();
        pages.free += self.pages;
        if let Some(held) = pages.held.get_mut(&self.client) {
            *held -= self.pages;
            if *held == 0 {
                pages.held.remove(&self.client);
            }
        }
    }
}

/// Reads a client's body into memory. Most arrive in one piece, which is not copied.
pub async fn collect<B>(
    mut body: B,
    memory: &BodyMemory,
    client: u64,
) -> Result<(Bytes, HeldMemory), ProxyError>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut held = HeldMemory::none(memory, client);
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
        held.grow(size)?;
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
    use futures_util::{StreamExt as _, stream};
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    async fn collected(
        sizes: &[usize],
        memory: &BodyMemory,
        client: u64,
    ) -> Result<(Bytes, HeldMemory), ProxyError> {
        let chunks = sizes.iter().map(|size| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![b'x'; *size])))
        });
        collect(
            StreamBody::new(stream::iter(chunks.collect::<Vec<_>>())),
            memory,
            client,
        )
        .await
    }

    #[tokio::test]
    async fn body_in_pieces_arrives_whole_and_gives_its_memory_back() {
        let memory = BodyMemory::default();
        let free = || memory.0.lock().free;
        let all = free();

        let (body, held) = collected(&[1, PAGE, 7, 3 * PAGE], &memory, 1)
            .await
            .unwrap();

        assert_eq!(body.len(), 4 * PAGE + 8);
        assert_eq!(free(), all - 4);
        drop(held);
        assert_eq!(free(), all);
        assert!(memory.0.lock().held.is_empty());
    }

    #[tokio::test]
    async fn body_for_which_there_is_no_memory_is_refused() {
        let memory = BodyMemory::of(8);
        let mut held = Vec::new();
        for client in 1..=4 {
            held.push(collected(&[2 * PAGE], &memory, client).await.unwrap());
        }

        assert!(collected(&[PAGE - 1], &memory, 5).await.is_ok());
        let refused = collected(&[PAGE], &memory, 5).await;
        assert!(matches!(refused, Err(ProxyError::NoMemory)), "{refused:?}");
    }

    #[tokio::test]
    async fn client_that_holds_its_share_is_refused_and_keeps_nobody_out() {
        let memory = BodyMemory::default();
        let part = MAX_HELD_BYTES / SHARE;
        let first = collected(&[part / 2], &memory, 1).await.unwrap();
        let _second = collected(&[part / 2], &memory, 1).await.unwrap();

        let refused = collected(&[PAGE], &memory, 1).await;

        assert!(matches!(refused, Err(ProxyError::ShareUsed)), "{refused:?}");
        assert!(collected(&[PAGE - 1], &memory, 1).await.is_ok());
        assert!(collected(&[part / 2], &memory, 2).await.is_ok());
        drop(first);
        assert!(collected(&[PAGE], &memory, 1).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_stands_still_is_given_up_and_gives_its_memory_back() {
        let memory = BodyMemory::default();
        let free = || memory.0.lock().free;
        let all = free();
        let begun = Ok::<_, std::convert::Infallible>(Frame::data(vec![0; 2 * PAGE].into()));
        let body = StreamBody::new(stream::iter([begun]).chain(stream::pending()));

        let given_up = collect(body, &memory, 1).await;

        assert!(
            matches!(given_up, Err(ProxyError::BodyPaused(BODY_PAUSE))),
            "{given_up:?}"
        );
        assert_eq!(free(), all);
    }

    #[tokio::test]
    async fn endless_body_is_refused() {
        let memory = BodyMemory::default();
        let halves = [MAX_BODY_BYTES / 2, MAX_BODY_BYTES / 2, 1];

        let refused = collected(&halves, &memory, 1).await;

        assert!(matches!(refused, Err(ProxyError::TooLarge)), "{refused:?}");
    }
}
