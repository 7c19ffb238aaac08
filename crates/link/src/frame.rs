//! Frames: one WebSocket binary message each.
//!
//! ```text
//!   kind (1)   stream (4, big endian)   payload
//!   0 control  –                        JSON, a HostMessage or a ServerMessage
//!   1 open     > 0                      JSON, an Open
//!   2 data     > 0                      bytes
//!   3 credit   > 0                      how many more bytes may be sent (4, big endian)
//!   4 finish   > 0                      –
//!   5 reset    > 0                      why, UTF-8
//! ```

use bytes::{BufMut, Bytes, BytesMut};

/// The longest JSON of a control frame, in bytes.
pub const CONTROL_MAX: usize = 256 * 1024;
/// The longest JSON of an open frame.
pub const OPEN_MAX: usize = 16 * 1024;
/// The longest payload of a data frame that is accepted.
pub const DATA_MAX: usize = 64 * 1024;
/// The longest payload of a data frame that is sent: short, so that control frames never wait for long.
pub const DATA_CHUNK: usize = 16 * 1024;
/// The longest reason of a reset.
pub const REASON_MAX: usize = 1024;
/// The longest frame of all.
pub const FRAME_MAX: usize = 1 + CONTROL_MAX;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// JSON between the two ends.
    Control(Bytes),
    /// Opens a stream.
    Open(u32, Bytes),
    /// Bytes of a stream.
    Data(u32, Bytes),
    /// Lets the other side send more.
    Credit(u32, u32),
    /// The sender sends no more on this stream.
    Finish(u32),
    /// The stream is over, with a reason.
    Reset(u32, String),
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Nothing in it.
    #[error("an empty frame")]
    Empty,
    /// A kind that there isn't.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Cut off before its head's end, or with the wrong payload for its kind.
    #[error("a frame of kind {0} is malformed")]
    Malformed(u8),
    /// Longer than its kind may be.
    #[error("a frame of kind {kind} with {length} bytes is too long")]
    TooLong {
        /// Kind.
        kind: u8,
        /// Bytes of payload.
        length: usize,
    },
}

impl Frame {
    /// Reads a frame. Payloads share the message's memory.
    pub fn parse(message: &Bytes) -> Result<Self, FrameError> {
        let kind = *message.first().ok_or(FrameError::Empty)?;
        let malformed = FrameError::Malformed(kind);
        let bounded = |payload: Bytes, most: usize| {
            let length = payload.len();
            if length > most {
                Err(FrameError::TooLong { kind, length })
            } else {
                Ok(payload)
            }
        };
        if kind == 0 {
            return bounded(message.slice(1..), CONTROL_MAX).map(Self::Control);
        }
        if kind > 5 {
            return Err(FrameError::Kind(kind));
        }
        let number = |at: usize| {
            let bytes = message.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let stream = number(1).filter(|id| *id > 0).ok_or(malformed)?;
        let payload = message.slice(5..);
        match kind {
            1 => bounded(payload, OPEN_MAX).map(|payload| Self::Open(stream, payload)),
            2 => bounded(payload, DATA_MAX).map(|payload| Self::Data(stream, payload)),
            3 if payload.len() == 4 => number(5).map(|by| Self::Credit(stream, by)).ok_or(malformed),
            4 if payload.is_empty() => Ok(Self::Finish(stream)),
            5 => {
                let reason = bounded(payload, REASON_MAX)?;
                let reason = std::str::from_utf8(&reason).map_err(|_| malformed)?;
                Ok(Self::Reset(stream, reason.into()))
            }
            _ => Err(malformed),
        }
    }

    /// Writes a frame.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Control(payload) => {
                let mut out = BytesMut::with_capacity(1 + payload.len());
                out.put_u8(0);
                out.put_slice(payload);
                out.freeze()
            }
            Self::Open(stream, payload) => with_head(1, *stream, payload),
            Self::Data(stream, payload) => with_head(2, *stream, payload),
            Self::Credit(stream, by) => with_head(3, *stream, &by.to_be_bytes()),
            Self::Finish(stream) => with_head(4, *stream, &[]),
            Self::Reset(stream, reason) => {
                let mut end = reason.len().min(REASON_MAX);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                with_head(5, *stream, &reason.as_bytes()[..end])
            }
        }
    }
}

pub(crate) fn with_head(kind: u8, stream: u32, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + payload.len());
    out.put_u8(kind);
    out.put_u32(stream);
    out.put_slice(payload);
    out.freeze()
}

#[cfg(test)]
mod tests;
