//! Splitting a byte stream into JSON values.
//!
//! OVSDB peers write JSON-RPC messages one after the other, with no length and no separator (RFC 7047,
//! section 4: "JSON-RPC over TCP", framing as in RFC 4627). The framer finds where each object or array ends
//! by counting brackets outside strings; whether what lies between is valid JSON is for the parser to say.

use bytes::{Buf, Bytes, BytesMut};

/// Why a stream can't be followed any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Between messages only white space may stand.
    #[error("expected the start of a JSON object or array, found byte 0x{0:02x}")]
    NotJson(u8),
    /// A message is longer than the limit.
    #[error("a message is longer than {0} bytes")]
    TooLong(usize),
    /// Objects and arrays are nested deeper than the limit.
    #[error("a message is nested deeper than {0} levels")]
    TooDeep(usize),
    /// A bracket closes nothing, or another kind of bracket.
    #[error("a bracket does not match at byte {0} of a message")]
    Unbalanced(usize),
}

/// An incremental splitter with bounds. After an error it stays in error: the stream has lost its place.
#[derive(Debug)]
pub struct Framer {
    buffer: BytesMut,
    /// Bytes of `buffer` already looked at.
    seen: usize,
    /// The closing brackets that are still to come, innermost last.
    open: Vec<u8>,
    in_string: bool,
    escaped: bool,
    max_bytes: usize,
    max_depth: usize,
    failed: Option<FrameError>,
}

impl Framer {
    /// A framer that refuses messages longer than `max_bytes` or nested deeper than `max_depth`.
    #[must_use]
    pub fn new(max_bytes: usize, max_depth: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            seen: 0,
            open: Vec::new(),
            in_string: false,
            escaped: false,
            max_bytes,
            max_depth,
            failed: None,
        }
    }

    /// Adds what was read.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next whole message, or `None` until more is fed.
    ///
    /// # Errors
    /// The stream is not a sequence of JSON objects and arrays, or breaks a bound.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.scan().inspect_err(|error| {
            self.failed = Some(error.clone());
            self.buffer.clear();
        })
    }

    fn scan(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.open.is_empty() {
            self.skip_space()?;
        }
        while let Some(&byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.seen > self.max_bytes {
                return Err(FrameError::TooLong(self.max_bytes));
            }
            self.step(byte)?;
            if self.open.is_empty() {
                let message = self.buffer.split_to(self.seen).freeze();
                self.seen = 0;
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn skip_space(&mut self) -> Result<(), FrameError> {
        let space = self
            .buffer
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
            .count();
        self.buffer.advance(space);
        match self.buffer.first() {
            None | Some(b'{' | b'[') => Ok(()),
            Some(&other) => Err(FrameError::NotJson(other)),
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), FrameError> {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Ok(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => {
                if self.open.len() == self.max_depth {
                    return Err(FrameError::TooDeep(self.max_depth));
                }
                self.open.push(if byte == b'{' { b'}' } else { b']' });
            }
            b'}' | b']' if self.open.pop() != Some(byte) => {
                return Err(FrameError::Unbalanced(self.seen - 1));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
