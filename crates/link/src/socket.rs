//! A WebSocket with a [`Core`](crate::mux::Core): one task polls it, and nothing else touches the connection.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{Sink, Stream as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        protocol::{CloseFrame, WebSocketConfig},
    },
};

use crate::{
    close::{self, Close},
    frame::{FRAME_MAX, Frame, FrameError},
    mux::{Incoming, Shared, Violation},
    stream::Stream,
};

/// How long a frame may take from its first byte to its last.
pub(crate) const FRAME_TIME: Duration = Duration::from_secs(30);
/// How long the peer may leave what we send unread.
pub(crate) const STALL_TIME: Duration = Duration::from_secs(60);
/// How long a close may take.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The peer closed it, with a code and perhaps a time to come back.
    #[error("closed by the other side ({}{})", .0.code, after_colon(&.0.reason))]
    ByPeer(Close),
    /// This side closed it.
    #[error("closed by this side")]
    Here,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The peer spoke no WebSocket.
    #[error("the other side does not speak the link's WebSocket")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The peer sent what is no frame.
    #[error("the other side sent what is no frame")]
    Frame(#[from] FrameError),
    /// The peer broke the streams' rules.
    #[error("the other side broke the link's rules")]
    Violation(#[from] Violation),
    /// The peer sent a control message that can't be read, or at the wrong time.
    #[error("the other side sent a wrong control message: {0}")]
    Message(&'static str),
    /// Nothing came for too long.
    #[error("nothing came from the other side for {} s", .0.as_secs())]
    Silent(Duration),
    /// A frame was begun and not ended.
    #[error("the other side began a frame and did not end it within {} s", FRAME_TIME.as_secs())]
    Unfinished,
    /// The peer doesn't read.
    #[error("the other side does not read what it is sent")]
    Stalled,
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    }
}

impl Ended {
    /// What the peer is told.
    fn close(&self) -> Option<Close> {
        match self {
            Self::ByPeer(_) | Self::Here | Self::Broken(_) | Self::Stalled => None,
            Self::Silent(_) | Self::Unfinished => Some(Close::new(close::NORMAL, "too slow")),
            Self::WebSocket(_) | Self::Frame(_) | Self::Violation(_) | Self::Message(_) => {
                Some(Close::new(close::PROTOCOL, "protocol error"))
            }
        }
    }
}

impl From<tungstenite::Error> for Ended {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Io(error) => Self::Broken(error),
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
                Self::Broken(io::ErrorKind::UnexpectedEof.into())
            }
            tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Broken(io::ErrorKind::UnexpectedEof.into())
            }
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

/// Buffers as small as they can be: an idle link holds next to nothing. What is written goes out at once.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(512)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * FRAME_MAX)
        .max_message_size(Some(FRAME_MAX))
        .max_frame_size(Some(FRAME_MAX))
}

/// What came for the connection's owner.
#[derive(Debug)]
pub(crate) enum Event {
    Control(Bytes),
    Open(Bytes, Stream),
}

/// The connection. Cancel safe: all state is here.
pub(crate) struct Socket<IO> {
    ws: WebSocketStream<Meter<IO>>,
    shared: Arc<Shared>,
    timer: Pin<Box<Sleep>>,
    silence: Duration,
    heard: Instant,
    /// Since when a frame is incomplete, and what had come by then.
    partial: Option<Instant>,
    seen: u64,
    /// Since when something waits to be written.
    blocked: Option<Instant>,
    unflushed: bool,
    ending: Option<Ending>,
}

/// On the way out.
enum Ending {
    /// The close frame is to be sent, then this is why.
    Closing(Option<Ended>, Close, Instant),
    Done,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Socket<IO> {
    pub(crate) fn new(ws: WebSocketStream<Meter<IO>>, shared: Arc<Shared>, silence: Duration) -> Self {
        let now = Instant::now();
        let seen = ws.get_ref().received;
        Self {
            ws,
            shared,
            timer: Box::pin(tokio::time::sleep_until(now + silence)),
            silence,
            heard: now,
            partial: None,
            seen,
            blocked: None,
            unflushed: false,
            ending: None,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Bytes received and sent below the WebSocket, above TLS.
    pub(crate) fn traffic(&self) -> (u64, u64) {
        let meter = self.ws.get_ref();
        (meter.received, meter.sent)
    }

    /// Writes what is to be written, reads what came, until something is for the owner or the link is over.
    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ended>> {
        loop {
            if self.ending.is_some() {
                return self.poll_end(cx).map(Err);
            }
            self.shared.lock().register(cx);
            let asked = self.shared.lock().closing.clone();
            match self.poll_work(cx) {
                Poll::Ready(Ok(event)) => return Poll::Ready(Ok(event)),
                Poll::Ready(Err(ended)) => self.end(ended),
                Poll::Pending => {
                    let close = asked.filter(|_| !self.shared.lock().has_urgent());
                    let Some(close) = close else { return Poll::Pending };
                    self.ending = Some(Ending::Closing(
                        Some(Ended::Here),
                        close,
                        Instant::now() + CLOSE_TIME,
                    ));
                }
            }
        }
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, Ended>> {
        loop {
            self.write(cx)?;
            match Pin::new(&mut self.ws).poll_next(cx) {
                Poll::Ready(Some(message)) => {
                    self.heard = Instant::now();
                    self.partial = None;
                    self.seen = self.ws.get_ref().received;
                    if let Some(event) = self.receive(message?)? {
                        return Poll::Ready(Ok(event));
                    }
                }
                Poll::Ready(None) => {
                    return Poll::Ready(Err(Ended::Broken(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Pending => {
                    ready!(self.poll_timer(cx))?;
                }
            }
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        loop {
            match Pin::new(&mut self.ws).poll_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Ok(());
                }
            }
            let frame = self.shared.lock().next_frame();
            let Some(frame) = frame else { break };
            Pin::new(&mut self.ws).start_send(Message::Binary(frame))?;
            self.unflushed = true;
        }
        if self.unflushed {
            match Pin::new(&mut self.ws).poll_flush(cx) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.unflushed = false;
                }
                Poll::Pending => {
                    self.blocked.get_or_insert_with(Instant::now);
                    return Ok(());
                }
            }
        }
        self.blocked = None;
        Ok(())
    }

    fn receive(&mut self, message: Message) -> Result<Option<Event>, Ended> {
        let frame = match message {
            Message::Binary(bytes) => Frame::parse(&bytes)?,
            Message::Close(frame) => return Err(Ended::ByPeer(close_of(frame))),
            Message::Ping(_) | Message::Pong(_) => return Ok(None),
            Message::Text(_) | Message::Frame(_) => return Err(Ended::Message("text, where binary is due")),
        };
        let incoming = self.shared.lock().receive(frame)?;
        Ok(incoming.map(|incoming| match incoming {
            Incoming::Control(payload) => Event::Control(payload),
            Incoming::Open(id, payload) => Event::Open(payload, Stream::new(self.shared.clone(), id)),
        }))
    }

    /// Ready when a time limit is over or the timer has to be looked at again.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        let now = Instant::now();
        if self.ws.get_ref().received != self.seen {
            self.partial.get_or_insert(now);
        }
        let mut due = self.heard + self.silence;
        for limit in [
            self.partial.map(|since| since + FRAME_TIME),
            self.blocked.map(|since| since + STALL_TIME),
        ] {
            due = limit.map_or(due, |limit| limit.min(due));
        }
        if now >= due {
            let over = |since: Option<Instant>, limit| since.is_some_and(|since| now >= since + limit);
            return Poll::Ready(Err(if over(self.partial, FRAME_TIME) {
                Ended::Unfinished
            } else if over(self.blocked, STALL_TIME) {
                Ended::Stalled
            } else {
                Ended::Silent(self.silence)
            }));
        }
        // Only ever moved nearer: when it rings early it is set anew, which is rarer than messages are.
        if self.timer.deadline() > due || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Ready(()) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends the link for a reason of its owner: the peer is told, then [`Socket::poll_event`] gives the reason.
    pub(crate) fn end(&mut self, ended: Ended) {
        self.ending = Some(match ended.close() {
            Some(close) => Ending::Closing(Some(ended), close, Instant::now() + CLOSE_TIME),
            None => Ending::Closing(Some(ended), Close::new(0, ""), Instant::now()),
        });
        self.shared.lock().close();
    }

    /// Sends the close frame, for as long as that may take.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some(Ending::Closing(ended, close, until)) = &mut self.ending else {
            return Poll::Ready(Ended::Here);
        };
        let (code, until) = (close.code, *until);
        if code != 0 {
            let frame = CloseFrame {
                code: code.into(),
                reason: close.text().into(),
            };
            let mut ws = Pin::new(&mut self.ws);
            let sent = match ws.as_mut().poll_ready(cx) {
                Poll::Ready(Ok(())) => ws.as_mut().start_send(Message::Close(Some(frame))).is_ok(),
                Poll::Ready(Err(_)) => false,
                Poll::Pending => {
                    self.timer.as_mut().reset(until);
                    ready!(self.timer.as_mut().poll(cx));
                    false
                }
            };
            close.code = 0;
            if sent {
                // One try: what doesn't fit into the socket's buffer now isn't worth waiting for.
                let _ = ws.as_mut().poll_flush(cx);
            }
        }
        let ended = ended.take().unwrap_or(Ended::Here);
        self.ending = Some(Ending::Done);
        self.shared.lock().close();
        Poll::Ready(ended)
    }
}

impl<IO> Drop for Socket<IO> {
    fn drop(&mut self) {
        self.shared.lock().close();
    }
}

fn close_of(frame: Option<CloseFrame>) -> Close {
    frame.map_or_else(
        || Close::new(close::NORMAL, ""),
        |frame| Close::parse(frame.code.into(), &frame.reason),
    )
}

/// Counts the bytes that pass.
#[derive(Debug)]
pub(crate) struct Meter<IO> {
    io: IO,
    received: u64,
    sent: u64,
}

impl<IO> Meter<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self {
            io,
            received: 0,
            sent: 0,
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Meter<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, out);
        self.received += (out.filled().len() - before) as u64;
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Meter<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.sent += written as u64;
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
