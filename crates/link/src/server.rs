//! The orchestrator's side of one host's link.
//!
//! [`accept`] takes a TLS stream whose client certificate was checked, answers the WebSocket upgrade and waits for the
//! host's first message, each within a time limit. What it gives is the [`Session`]: one task calls
//! [`Session::next`] until it ends, and that call does all the connection's work, its streams' too. So: call it again
//! soon, and do what takes long elsewhere. Others use its [`Handle`].

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_tungstenite::{
    accept_hdr_async_with_config,
    tungstenite::{
        self,
        handshake::server::{ErrorResponse, Request, Response},
        http::StatusCode,
    },
};

use crate::{
    PATH, handle,
    message::{Hello, HostMessage, ServerMessage},
    mux::{MAX_STREAMS, Shared},
    socket::{Event, Meter, Socket, websocket_config},
};
pub use crate::{handle::Handle, mux::SendError, socket::Ended};

/// How a session is kept.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// For the WebSocket upgrade, and again for the first message.
    pub handshake_time: Duration,
    /// A link on which no whole message comes for this long is over: four heartbeats.
    pub silence: Duration,
    /// Streams at once.
    pub max_streams: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            handshake_time: Duration::from_secs(10),
            silence: Duration::from_secs(120),
            max_streams: MAX_STREAMS,
        }
    }
}

/// Why no session came about.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Too slow.
    #[error("the host was too slow with its {0}")]
    Slow(&'static str),
    /// No WebSocket upgrade of the link.
    #[error("the host did not ask for the link's WebSocket")]
    Upgrade(#[source] Box<tungstenite::Error>),
    /// The connection ended first.
    #[error("the link ended before the host said hello")]
    Ended(#[source] Ended),
}

/// One host's link. Dropping it ends the connection and all its streams.
pub struct Session<IO> {
    // Boxed once: what holds a session stays small.
    socket: Box<Socket<IO>>,
    hello: Hello,
}

/// Takes in a host.
pub async fn accept<IO>(io: IO, options: Options) -> Result<Session<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    // In a box of its own, that is gone when the host is in.
    Box::pin(begin(io, options)).await
}

async fn begin<IO>(io: IO, options: Options) -> Result<Session<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
{
    let upgrade = accept_hdr_async_with_config(Meter::new(io), right_path, Some(websocket_config()));
    let ws = match timeout(options.handshake_time, upgrade).await {
        Err(_) => return Err(AcceptError::Slow("upgrade to WebSocket")),
        Ok(Err(error)) => return Err(AcceptError::Upgrade(Box::new(error))),
        Ok(Ok(ws)) => ws,
    };
    let shared = Arc::new(Shared::new(true, options.max_streams));
    let mut session = Session {
        socket: Box::new(Socket::new(ws, shared, options.silence)),
        hello: Hello::default(),
    };
    match timeout(options.handshake_time, session.first()).await {
        Err(_) => Err(AcceptError::Slow("first message")),
        Ok(Err(ended)) => Err(AcceptError::Ended(ended)),
        Ok(Ok(hello)) => {
            session.hello = hello;
            Ok(session)
        }
    }
}

#[expect(clippy::result_large_err, reason = "the WebSocket library's own signature")]
fn right_path(request: &Request, response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() == PATH {
        return Ok(response);
    }
    let mut refusal = ErrorResponse::new(Some(format!("the link is at {PATH}")));
    *refusal.status_mut() = StatusCode::NOT_FOUND;
    Err(refusal)
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Session<IO> {
    /// What the host said first.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// For sending messages and opening streams.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(self.socket.shared().clone())
    }

    /// Payload bytes received and sent, without what TLS, TCP and IP add.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        self.socket.traffic()
    }

    /// The next message. A [`HostMessage::Beat`] is answered already; messages of a newer protocol are skipped. Cancel
    /// safe. After an error the link is over.
    pub async fn next(&mut self) -> Result<HostMessage, Ended> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<HostMessage, Ended>> {
        loop {
            let event = ready!(self.socket.poll_event(cx))?;
            match self.read(event) {
                Ok(HostMessage::Unknown) => {}
                Ok(message) => return Poll::Ready(Ok(message)),
                // The host is told, and the next round gives the reason.
                Err(ended) => self.socket.end(ended),
            }
        }
    }

    fn read(&self, event: Event) -> Result<HostMessage, Ended> {
        let Event::Control(payload) = event else {
            return Err(Ended::Message("an open, which is the orchestrator's to send"));
        };
        let message = serde_json::from_slice(&payload)
            .map_err(|_| Ended::Message("not one that this orchestrator reads"))?;
        match &message {
            HostMessage::Hello(_) if self.hello.protocol != 0 => Err(Ended::Message("a second hello")),
            HostMessage::Beat {} => match handle::send(self.socket.shared(), &ServerMessage::Beat {}) {
                Err(SendError::Full) => Err(Ended::Stalled),
                _ => Ok(message),
            },
            _ => Ok(message),
        }
    }

    async fn first(&mut self) -> Result<Hello, Ended> {
        match self.next().await? {
            HostMessage::Hello(hello) if hello.protocol >= 1 => Ok(hello),
            _ => Err(Ended::Message(
                "the first message must be a hello with a protocol",
            )),
        }
    }

    /// Closes the link and waits until the host was told, at most a few seconds. What comes meanwhile is lost.
    pub async fn close(mut self, close: crate::close::Close) {
        self.handle().close(close);
        while self.next().await.is_ok() {}
    }
}

/// An I/O error of a link that isn't there any more.
#[must_use]
pub fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the host is not connected")
}
