//! Bodies: reading a request's within its limit, and the three forms of an answer's.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};

use crate::Status;

/// The largest request body, as in Kubernetes.
pub(crate) const MAX_REQUEST: usize = 3 * 1024 * 1024;

/// An answer that broke off: the connection (or the stream) is reset, so that the client can't take it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer broke off")]
pub(crate) struct BrokenOff;

/// A stream of an answer's parts.
pub(crate) type Parts = Pin<Box<dyn Stream<Item = Result<Bytes, BrokenOff>> + Send>>;

/// The body of an answer.
pub(crate) enum Body {
    /// All of it; `None` once sent.
    Full(Option<Bytes>),
    /// Made while it is sent.
    Stream(Parts),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::Full(None)
    }

    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    pub(crate) fn stream(parts: impl Stream<Item = Result<Bytes, BrokenOff>> + Send + 'static) -> Self {
        Self::Stream(Box::pin(parts))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            Self::Stream(parts) => parts
                .as_mut()
                .poll_next(cx)
                .map(|part| part.map(|p| p.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// All of a request's body.
pub(crate) async fn read(body: Incoming) -> Result<Bytes, Status> {
    let too_large = || {
        Status::new(
            413,
            "RequestEntityTooLarge",
            format!("limit is {MAX_REQUEST} bytes"),
        )
    };
    if body.size_hint().lower() > MAX_REQUEST as u64 {
        return Err(too_large());
    }
    match Limited::new(body, MAX_REQUEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Status::new(400, "BadRequest", "the request's body broke off")),
    }
}
