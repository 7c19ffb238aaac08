//! What a connection has to say and what its streams hold: no I/O, no waiting.
//!
//! One side opens streams (the orchestrator), the other serves them. Control frames go first, then the streams take
//! turns, one chunk each. A stream may send as much as the other side has given it credit for, and its reader gives
//! credit only for what it took: a slow reader stops its own stream and no other.
//!
//! What one connection can make us hold is bounded: [`URGENT_MAX`] of control frames, and for each of at most
//! `max_streams` streams one [`WINDOW`] that came and one [`OUTBOX_MAX`] that goes. See [`held_at_most`].

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use bytes::{Bytes, BytesMut};

use crate::{
    close::Close,
    frame::{DATA_CHUNK, FRAME_MAX, Frame, with_head},
};

/// How much of a stream may be under way before its reader takes any.
pub const WINDOW: u32 = 64 * 1024;
/// How much a writer may have put into a stream that isn't sent yet.
pub const OUTBOX_MAX: usize = 64 * 1024;
/// How much of control, open, credit and reset frames may wait to be sent.
pub const URGENT_MAX: usize = 1024 * 1024;
/// Streams at once on one connection, unless said otherwise.
pub const MAX_STREAMS: usize = 64;

/// The most bytes of foreign making that a connection with `max_streams` streams can make us hold: its queues, one
/// frame that is being read, one that is being written, and both of TLS's buffers. (A host may for moments hold twice
/// its `max_streams`: those that the orchestrator has ended and whose servers haven't noticed yet.)
#[must_use]
pub fn held_at_most(max_streams: usize) -> usize {
    // A growing buffer may have twice the room that it needs.
    let stream = 2 * (WINDOW as usize + OUTBOX_MAX);
    URGENT_MAX + FRAME_MAX + max_streams * stream + 3 * FRAME_MAX + 128 * 1024
}

/// The peer broke the rules: the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Only the orchestrator opens streams.
    #[error("the peer opened a stream, which it may not")]
    Opened,
    /// Numbers only go up.
    #[error("the peer opened stream {0} a second time")]
    Reopened(u32),
    /// About a stream that never was.
    #[error("the peer spoke of stream {0}, which was never opened")]
    Unknown(u32),
    /// More than it had credit for.
    #[error("the peer sent more on stream {0} than it had credit for")]
    Overrun(u32),
    /// More credit than can be.
    #[error("the peer gave stream {0} more credit than there can be")]
    Credit(u32),
    /// Data after the finish.
    #[error("the peer sent data on stream {0} after its end")]
    AfterFinish(u32),
    /// It makes us answer and doesn't read the answers.
    #[error("the peer does not read what it is sent")]
    Backlog,
}

/// Why nothing can be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The connection is over.
    #[error("the link is closed")]
    Closed,
    /// The peer doesn't read.
    #[error("the link's queue is full: the peer does not read")]
    Full,
    /// The message is longer than a control frame may be.
    #[error("the message of {0} bytes is longer than the link carries")]
    TooLong(usize),
    /// Too many streams at once.
    #[error("the link has as many streams open as it may")]
    TooManyStreams,
    /// Not JSON, which can't be.
    #[error("the message can't be written as JSON")]
    Json,
}

/// One direction pair of a stream.
#[derive(Default)]
pub(crate) struct Half {
    pub(crate) inbox: BytesMut,
    /// What the peer may still send.
    allowed: u32,
    /// What was taken since credit was last given.
    pub(crate) taken: u32,
    pub(crate) finished_in: bool,
    pub(crate) reader: Option<Waker>,

    pub(crate) outbox: BytesMut,
    /// What we may still send.
    credit: u32,
    pub(crate) finishing: bool,
    finished_out: bool,
    pub(crate) writer: Option<Waker>,

    /// Whether the stream waits for its turn in `Core::turns`.
    queued: bool,
    /// The peer's reason for ending it.
    pub(crate) reset: Option<String>,
    /// Nobody here holds the stream any more; what is left is to send the rest.
    dropped: bool,
}

impl Half {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn has_turn(&self) -> bool {
        (!self.outbox.is_empty() && self.credit > 0)
            || (self.outbox.is_empty() && self.finishing && !self.finished_out)
    }
}

/// Everything that both the connection's task and its handles and streams touch.
pub(crate) struct Core {
    opener: bool,
    max_streams: usize,
    urgent: VecDeque<Bytes>,
    urgent_bytes: usize,
    turns: VecDeque<u32>,
    pub(crate) streams: HashMap<u32, Half>,
    /// The last number that was opened.
    last: u32,
    driver: Option<Waker>,
    pub(crate) closing: Option<Close>,
    pub(crate) closed: bool,
}

/// What came that isn't for a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Control(Bytes),
    Open(u32, Bytes),
}

impl Core {
    fn new(opener: bool, max_streams: usize) -> Self {
        Self {
            opener,
            max_streams,
            urgent: VecDeque::new(),
            urgent_bytes: 0,
            turns: VecDeque::new(),
            streams: HashMap::new(),
            last: 0,
            driver: None,
            closing: None,
            closed: false,
        }
    }

    /// Whom to wake when there is something to send.
    pub(crate) fn register(&mut self, context: &Context<'_>) {
        match &mut self.driver {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    pub(crate) fn wake_driver(&self) {
        if let Some(waker) = &self.driver {
            waker.wake_by_ref();
        }
    }

    /// Queues a frame that goes before all data.
    pub(crate) fn push_urgent(&mut self, frame: Bytes) -> Result<(), SendError> {
        if self.closed || self.closing.is_some() {
            return Err(SendError::Closed);
        }
        if self.urgent_bytes + frame.len() > URGENT_MAX {
            return Err(SendError::Full);
        }
        self.urgent_bytes += frame.len();
        self.urgent.push_back(frame);
        self.wake_driver();
        Ok(())
    }

    /// Opens a stream of ours.
    pub(crate) fn open(&mut self, payload: &[u8]) -> Result<u32, SendError> {
        if self.streams.len() >= self.max_streams {
            return Err(SendError::TooManyStreams);
        }
        let id = self.last.checked_add(1).ok_or(SendError::TooManyStreams)?;
        self.push_urgent(with_head(1, id, payload))?;
        self.last = id;
        self.streams.insert(id, fresh());
        Ok(id)
    }

    /// Gives a stream its turn, when it has something that may be sent.
    pub(crate) fn queue(&mut self, id: u32) {
        if let Some(half) = self.streams.get_mut(&id)
            && !half.queued
            && half.has_turn()
        {
            half.queued = true;
            self.turns.push_back(id);
            self.wake_driver();
        }
    }

    /// Gives the peer credit for what a reader took, in lumps of half a window.
    pub(crate) fn give_credit(&mut self, id: u32) {
        let Some(half) = self.streams.get_mut(&id) else {
            return;
        };
        if half.finished_in || half.taken < WINDOW / 2 {
            return;
        }
        let by = std::mem::take(&mut half.taken);
        half.allowed += by;
        // No room: the connection is being closed anyway.
        let _ = self.push_urgent(Frame::Credit(id, by).encode());
    }

    /// A stream's holder let go of it.
    pub(crate) fn drop_stream(&mut self, id: u32) {
        let Some(half) = self.streams.get_mut(&id) else {
            return;
        };
        half.dropped = true;
        half.reader = None;
        half.writer = None;
        // What nobody will read is as good as read: the peer gets on to its end, and so do we.
        half.taken += u32::try_from(half.inbox.len()).unwrap_or(0);
        half.inbox = BytesMut::new();
        if half.reset.is_some() || self.closed {
            self.streams.remove(&id);
        } else if !half.finishing {
            self.reset(id, "closed");
        } else if half.finished_out {
            self.remove_finished(id);
        } else {
            self.give_credit(id);
        }
    }

    /// Forgets a stream of which our direction is over. If the peer still sends, it is told to stop.
    fn remove_finished(&mut self, id: u32) {
        if let Some(half) = self.streams.remove(&id)
            && !half.finished_in
        {
            let _ = self.push_urgent(Frame::Reset(id, "closed".into()).encode());
        }
    }

    /// Ends a stream for a reason that the peer is told.
    pub(crate) fn reset(&mut self, id: u32, reason: &str) {
        if self.streams.remove(&id).is_some() {
            let _ = self.push_urgent(Frame::Reset(id, reason.into()).encode());
        }
    }

    /// The next frame to send.
    pub(crate) fn next_frame(&mut self) -> Option<Bytes> {
        if let Some(frame) = self.urgent.pop_front() {
            self.urgent_bytes -= frame.len();
            if self.urgent.is_empty() {
                // Idle connections hold nothing.
                self.urgent = VecDeque::new();
            }
            return Some(frame);
        }
        while let Some(id) = self.turns.pop_front() {
            let Some(half) = self.streams.get_mut(&id) else {
                continue;
            };
            half.queued = false;
            let most = half.outbox.len().min(DATA_CHUNK);
            let length = u32::try_from(most).unwrap_or(u32::MAX).min(half.credit);
            if length > 0 {
                half.credit -= length;
                let chunk = half.outbox.split_to(length as usize);
                if half.outbox.is_empty() {
                    half.outbox = BytesMut::new();
                }
                if let Some(writer) = half.writer.take() {
                    writer.wake();
                }
                self.queue(id);
                return Some(with_head(2, id, &chunk));
            }
            if half.has_turn() {
                half.finished_out = true;
                if half.dropped {
                    self.remove_finished(id);
                }
                return Some(Frame::Finish(id).encode());
            }
        }
        None
    }

    pub(crate) fn has_urgent(&self) -> bool {
        !self.urgent.is_empty()
    }

    /// Takes in a frame of the peer.
    pub(crate) fn receive(&mut self, frame: Frame) -> Result<Option<Incoming>, Violation> {
        match frame {
            Frame::Control(payload) => return Ok(Some(Incoming::Control(payload))),
            Frame::Open(id, payload) => return self.opened(id, payload),
            Frame::Data(id, payload) => {
                let Some(half) = self.known(id)? else {
                    return Ok(None);
                };
                if half.finished_in {
                    return Err(Violation::AfterFinish(id));
                }
                let length = u32::try_from(payload.len()).map_err(|_| Violation::Overrun(id))?;
                half.allowed = half.allowed.checked_sub(length).ok_or(Violation::Overrun(id))?;
                if half.dropped {
                    half.taken += length;
                    self.give_credit(id);
                    return Ok(None);
                }
                half.inbox.extend_from_slice(&payload);
                if let Some(reader) = half.reader.take() {
                    reader.wake();
                }
            }
            Frame::Credit(id, by) => {
                let Some(half) = self.known(id)? else {
                    return Ok(None);
                };
                half.credit = half.credit.checked_add(by).ok_or(Violation::Credit(id))?;
                self.queue(id);
            }
            Frame::Finish(id) => {
                let Some(half) = self.known(id)? else {
                    return Ok(None);
                };
                if half.finished_in {
                    return Err(Violation::AfterFinish(id));
                }
                half.finished_in = true;
                half.taken = 0;
                if let Some(reader) = half.reader.take() {
                    reader.wake();
                }
            }
            Frame::Reset(id, reason) => {
                let Some(half) = self.known(id)? else {
                    return Ok(None);
                };
                half.reset = Some(reason);
                half.outbox = BytesMut::new();
                half.wake();
                if half.dropped {
                    self.streams.remove(&id);
                }
            }
        }
        Ok(None)
    }

    fn opened(&mut self, id: u32, payload: Bytes) -> Result<Option<Incoming>, Violation> {
        if self.opener {
            return Err(Violation::Opened);
        }
        if id <= self.last {
            return Err(Violation::Reopened(id));
        }
        self.last = id;
        // One that the peer has ended is still here until its holder lets go of it.
        let live = self.streams.values().filter(|half| half.reset.is_none()).count();
        if live >= self.max_streams || self.streams.len() >= 2 * self.max_streams {
            let refusal = Frame::Reset(id, "too many streams".into()).encode();
            return match self.push_urgent(refusal) {
                Err(SendError::Full) => Err(Violation::Backlog),
                _ => Ok(None),
            };
        }
        self.streams.insert(id, fresh());
        Ok(Some(Incoming::Open(id, payload)))
    }

    /// A stream that is open; none if it was and is no more: what the peer said of it crossed our reset.
    fn known(&mut self, id: u32) -> Result<Option<&mut Half>, Violation> {
        if id > self.last {
            return Err(Violation::Unknown(id));
        }
        Ok(self.streams.get_mut(&id))
    }

    /// The connection is over: everybody who waits is told.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.urgent = VecDeque::new();
        self.urgent_bytes = 0;
        self.turns = VecDeque::new();
        self.streams.retain(|_, half| {
            half.outbox = BytesMut::new();
            half.wake();
            !half.dropped
        });
    }

    /// How many bytes are held for the peer or came from it.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        let streams = self.streams.values();
        self.urgent_bytes
            + streams
                .map(|half| half.inbox.len() + half.outbox.len())
                .sum::<usize>()
    }
}

fn fresh() -> Half {
    Half {
        allowed: WINDOW,
        credit: WINDOW,
        ..Half::default()
    }
}

/// Takes bytes out of an inbox, and lets go of its memory when it is empty.
pub(crate) fn take(inbox: &mut BytesMut, most: usize) -> BytesMut {
    let out = inbox.split_to(most.min(inbox.len()));
    if inbox.is_empty() {
        *inbox = BytesMut::new();
    }
    out
}

/// A [`Core`] that is shared.
pub(crate) struct Shared(Mutex<Core>);

impl Shared {
    pub(crate) fn new(opener: bool, max_streams: usize) -> Self {
        Self(Mutex::new(Core::new(opener, max_streams)))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Core> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
