//! Lists, sent in pieces made from the stored bytes: the whole answer is never in memory twice.

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    body::{Body, BrokenOff},
    render::{Form, ListMeta},
};

/// How much is sent at a time.
const PIECE: usize = 32 * 1024;

/// The body of a list. Small lists are sent whole, so that they have a length.
pub(super) fn body(form: Form, meta: &ListMeta, items: Vec<Bytes>, now: Timestamp) -> Body {
    let head = form.list_head(meta);
    let mut pieces = Pieces {
        form,
        items: items.into_iter(),
        now,
        buffer: head,
        first: true,
        done: false,
    };
    match pieces.next_piece() {
        Some(Ok(piece)) if pieces.done => Body::full(piece),
        Some(first) => Body::stream(futures::stream::unfold(
            (Some(first), pieces),
            |(ready, mut pieces)| async move {
                let piece = match ready {
                    Some(piece) => piece,
                    None => pieces.next_piece()?,
                };
                Some((piece, (None, pieces)))
            },
        )),
        None => Body::empty(),
    }
}

struct Pieces {
    form: Form,
    items: std::vec::IntoIter<Bytes>,
    now: Timestamp,
    buffer: Vec<u8>,
    first: bool,
    done: bool,
}

impl Pieces {
    fn next_piece(&mut self) -> Option<Result<Bytes, BrokenOff>> {
        if self.done {
            return None;
        }
        while self.buffer.len() < PIECE {
            let Some(raw) = self.items.next() else {
                self.buffer.extend_from_slice(b"]}\n");
                self.done = true;
                break;
            };
            if !self.first {
                self.buffer.push(b',');
            }
            self.first = false;
            if let Err(error) = self.form.write_item(&mut self.buffer, &raw, self.now) {
                // Only a damaged store holds what is no object; a list without it would be a lie.
                tracing::error!(%error, "a stored object can't be read");
                self.done = true;
                return Some(Err(BrokenOff));
            }
        }
        Some(Ok(std::mem::take(&mut self.buffer).into()))
    }
}
