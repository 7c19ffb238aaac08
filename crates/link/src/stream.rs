//! One byte stream of many on a link.

use std::{
    fmt,
    io::{Error, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::mux::{OUTBOX_MAX, Shared, take};

/// A byte stream in both directions. `shutdown` ends our direction and leaves the other open. Dropping it after a
/// `shutdown` still sends all that was written; without, what isn't sent yet is lost and the other side sees a reset.
///
/// Reads after the peer's reset fail with [`ErrorKind::ConnectionReset`] and its reason, and after the
/// link's end with [`ErrorKind::ConnectionAborted`].
///
/// `flush` doesn't wait for the peer: what was written is on its way as soon as there is credit.
pub struct Stream {
    shared: Arc<Shared>,
    id: u32,
}

impl Stream {
    pub(crate) fn new(shared: Arc<Shared>, id: u32) -> Self {
        Self { shared, id }
    }

    /// Its number on this link.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Ends the stream in both directions, with a reason that the other side sees.
    pub fn reset(self, reason: &str) {
        self.shared.lock().reset(self.id, reason);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        let mut core = self.shared.lock();
        let closed = core.closed;
        let Some(half) = core.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        };
        if !half.inbox.is_empty() {
            let bytes = take(&mut half.inbox, out.remaining());
            half.taken += u32::try_from(bytes.len()).unwrap_or(0);
            out.put_slice(&bytes);
            core.give_credit(self.id);
            return Poll::Ready(Ok(()));
        }
        // An end that came in order counts, whatever came after it.
        if half.finished_in {
            return Poll::Ready(Ok(()));
        }
        if let Some(reason) = &half.reset {
            return Poll::Ready(Err(Error::new(ErrorKind::ConnectionReset, reason.clone())));
        }
        if closed {
            return Poll::Ready(Err(Error::new(
                ErrorKind::ConnectionAborted,
                "the link is closed",
            )));
        }
        half.reader = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let mut core = self.shared.lock();
        let closed = core.closed;
        let Some(half) = core.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        };
        if let Some(reason) = &half.reset {
            return Poll::Ready(Err(Error::new(ErrorKind::ConnectionReset, reason.clone())));
        }
        if closed || half.finishing {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = OUTBOX_MAX - half.outbox.len();
        if room == 0 {
            half.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let length = room.min(bytes.len());
        half.outbox.extend_from_slice(&bytes[..length]);
        core.queue(self.id);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut core = self.shared.lock();
        if let Some(half) = core.streams.get_mut(&self.id) {
            half.finishing = true;
            core.queue(self.id);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().drop_stream(self.id);
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
