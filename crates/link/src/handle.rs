//! What others than the connection's own task do with it.

use std::{fmt, sync::Arc};

use crate::{
    close::Close,
    frame::{CONTROL_MAX, Frame, OPEN_MAX},
    message::{Open, ServerMessage},
    mux::{SendError, Shared},
    stream::Stream,
};

/// The orchestrator's hand on one host's link: sends messages and opens streams, from any task. Cheap to clone.
/// Nothing here waits: messages are queued (at most a megabyte of them), the connection's task sends them.
#[derive(Clone)]
pub struct Handle(pub(crate) Arc<Shared>);

impl Handle {
    /// Queues a message.
    pub fn send(&self, message: &ServerMessage) -> Result<(), SendError> {
        send(&self.0, message)
    }

    /// Opens a stream on the host. It may be written at once; a host that won't serve it resets it with a reason.
    pub fn open(&self, open: &Open) -> Result<Stream, SendError> {
        let payload = serde_json::to_vec(open).map_err(|_| SendError::Json)?;
        if payload.len() > OPEN_MAX {
            return Err(SendError::TooLong(payload.len()));
        }
        let id = self.0.lock().open(&payload)?;
        Ok(Stream::new(self.0.clone(), id))
    }

    /// Closes the link, after what is queued. The host comes back by itself, not before `close.retry_after`.
    pub fn close(&self, close: Close) {
        let mut core = self.0.lock();
        core.closing.get_or_insert(close);
        core.wake_driver();
    }

    /// Whether the link is over, or is to be.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let core = self.0.lock();
        core.closed || core.closing.is_some()
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.lock().streams.len()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

pub(crate) fn send(shared: &Shared, message: &impl serde::Serialize) -> Result<(), SendError> {
    let payload = serde_json::to_vec(message).map_err(|_| SendError::Json)?;
    if payload.len() > CONTROL_MAX {
        return Err(SendError::TooLong(payload.len()));
    }
    shared.lock().push_urgent(Frame::Control(payload.into()).encode())
}
