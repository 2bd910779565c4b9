//! The one type of body that the server sends.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::early::EarlyBody;
use super::relay::RelayBody;

/// Why a body could not be sent to its end.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The body of an answer.
pub enum ProxyBody {
    /// Bytes that are there.
    Whole(Option<Bytes>),
    /// What an agent sends.
    Relay(Box<RelayBody>),
    /// Signs of life until an agent answers, then what it sends.
    Early(Box<EarlyBody>),
    /// What the management API sends, and streams made of several agents' answers.
    Other(AxumBody),
}

impl ProxyBody {
    /// Makes a body of bytes.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(body) => Pin::new(&mut **body).poll_frame(context),
            Self::Early(body) => body.poll_frame(context),
            Self::Other(body) => Pin::new(body).poll_frame(context).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Relay(body) => body.is_end_stream(),
            Self::Early(body) => body.is_end_stream(),
            Self::Other(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            Self::Relay(body) => body.size_hint(),
            Self::Early(_) => SizeHint::default(),
            Self::Other(body) => body.size_hint(),
        }
    }
}
