//! A connection whose other end must begin to speak.
//!
//! The limits of HTTP/1 and HTTP/2 begin with the client's first bytes: who finishes TLS and then says nothing would stay
//! for ever.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// Fails to read if the first bytes have not come in time.
pub(super) struct Prompt<S> {
    inner: S,
    /// The bytes that are still waited for, and until when; `None` once they are there.
    wanted: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Prompt<S> {
    /// `bytes` must come `within` this time; none means that nothing is demanded.
    pub(super) fn new(inner: S, bytes: usize, within: Duration) -> Self {
        Self {
            inner,
            wanted: (bytes > 0).then(|| (bytes, Box::pin(sleep(within)))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prompt<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, into);
        if let Some((wanted, until)) = &mut self.wanted {
            *wanted = wanted.saturating_sub(into.filled().len() - before);
            if *wanted == 0 {
                self.wanted = None;
            } else if read.is_pending() && until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prompt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_begins_may_pause_and_who_does_not_is_gone() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Prompt::new(server, 4, Duration::from_secs(30));
        client.write_all(b"PRI").await.unwrap();
        let mut bytes = [0; 4];
        server.read_exact(&mut bytes[..3]).await.unwrap();
        let late = server.read_u8().await.unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);

        let (mut client, server) = tokio::io::duplex(64);
        let mut server = Prompt::new(server, 4, Duration::from_secs(30));
        client.write_all(b"PRI *").await.unwrap();
        let pause = tokio::spawn(async move {
            sleep(Duration::from_secs(3600)).await;
            client.write_all(b"!").await.unwrap();
            client
        });
        let mut bytes = [0; 6];
        server.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"PRI *!");
        drop(pause.await.unwrap());
    }
}
