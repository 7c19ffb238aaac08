//! Watches: one JSON frame a line, until the client goes, its time is up, or the server stops.
//!
//! A frame holds the object's stored bytes, which all watchers share; only tables are made for each.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::FutureExt;
use tokio::time::{Instant, sleep_until};

use crate::api::{ObjectWatch, WatchItem, WatchKind};

use super::{State, body::Body, render::Form};

/// How often a watcher is told the newest revision.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// How much is sent at a time.
const PIECE: usize = 32 * 1024;

/// The body of a watch.
pub(super) fn body(state: Arc<State>, form: Form, watch: ObjectWatch, lasts: Duration) -> Body {
    state.metrics.watches.inc();
    let now = Instant::now();
    let frames = Frames {
        state,
        form,
        watch,
        deadline: now + lasts,
        bookmark_at: now + BOOKMARKS,
        first: true,
        ended: false,
    };
    Body::stream(futures::stream::unfold(frames, |mut frames| async move {
        let piece = frames.next().await?;
        Some((Ok(piece), frames))
    }))
}

struct Frames {
    state: Arc<State>,
    form: Form,
    watch: ObjectWatch,
    deadline: Instant,
    bookmark_at: Instant,
    /// Whether nothing was sent yet: a table's columns come with the first row only.
    first: bool,
    ended: bool,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.state.metrics.watches.dec();
    }
}

impl Frames {
    /// The next frames; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() && !self.ended {
            tokio::select! {
                biased;
                () = self.state.draining.cancelled() => self.ended = true,
                item = self.watch.next() => self.take(&mut out, item),
                () = sleep_until(self.deadline) => {
                    let mark = self.watch.bookmark();
                    self.mark(&mut out, mark);
                    self.ended = true;
                }
                () = sleep_until(self.bookmark_at) => {
                    self.bookmark_at = Instant::now() + BOOKMARKS;
                    let mark = self.watch.bookmark();
                    self.mark(&mut out, mark);
                }
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    /// Takes an item, and what else is ready, so that a burst is few pieces.
    fn take(&mut self, out: &mut Vec<u8>, item: Option<WatchItem>) {
        let mut item = item;
        loop {
            match item {
                Some(item) => self.write(out, &item),
                None => self.ended = true,
            }
            if self.ended || out.len() >= PIECE {
                return;
            }
            let Some(ready) = self.watch.next().now_or_never() else {
                return;
            };
            item = ready;
        }
    }

    fn mark(&mut self, out: &mut Vec<u8>, mark: Option<WatchItem>) {
        if let Some(mark) = mark {
            self.write(out, &mark);
        }
    }

    fn write(&mut self, out: &mut Vec<u8>, item: &WatchItem) {
        let now = self.state.api.clock().now();
        match self
            .form
            .write_event(out, item.kind, &item.object, self.first, now)
        {
            Ok(()) => self.first = false,
            Err(error) => {
                // Only a damaged store holds what is no object: the watcher must list again.
                tracing::error!(%error, "a stored object can't be read");
                self.ended = true;
            }
        }
        self.ended |= item.kind == WatchKind::Error;
    }
}
