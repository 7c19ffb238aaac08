//! What a watcher of one resource holds.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use tokio::sync::watch;

use super::reader::Readers;
use crate::{
    Change, Changes,
    recent::{Found, Recent},
};

/// What a watcher of one resource holds.
pub(super) struct Feed {
    resource: Arc<str>,
    /// Everything up to here was given out or is in `buffer`.
    taken: u64,
    /// Everything up to here was given out.
    given: u64,
    buffer: VecDeque<Arc<Change>>,
    wake: watch::Receiver<u64>,
    recent: Arc<Recent>,
    /// None for ephemeral resources.
    history: Option<Readers>,
    ended: bool,
}

impl Feed {
    pub(super) fn new(
        resource: Arc<str>,
        after: u64,
        wake: watch::Receiver<u64>,
        recent: Arc<Recent>,
        history: Option<Readers>,
    ) -> Self {
        Self {
            resource,
            taken: after,
            given: after,
            buffer: VecDeque::new(),
            wake,
            recent,
            history,
            ended: false,
        }
    }

    fn take(&mut self, changes: impl IntoIterator<Item = Arc<Change>>) {
        for change in changes {
            self.taken = change.revision;
            self.buffer.push_back(change);
        }
    }

    /// Reads on from the history; `false` if that is no longer possible.
    async fn read_history(&mut self, published: u64) -> bool {
        let Some(history) = &self.history else {
            return false;
        };
        let (resource, after) = (self.resource.clone(), self.taken);
        match history.replay(resource, after).await {
            Ok(Some(changes)) if changes.is_empty() => {
                self.taken = self.taken.max(published);
                self.given = self.taken;
            }
            Ok(Some(changes)) => self.take(changes.into_iter().map(Arc::new)),
            Ok(None) => return false,
            Err(error) => {
                tracing::warn!(error = %telemetry::chain(&error), resource = %self.resource, "a watch ends: its history can't be read");
                return false;
            }
        }
        true
    }
}

#[async_trait]
impl Changes for Feed {
    async fn next(&mut self) -> Option<Arc<Change>> {
        loop {
            if let Some(change) = self.buffer.pop_front() {
                self.given = change.revision;
                return Some(change);
            }
            if self.ended {
                return None;
            }
            // Before looking, so that a change after the look wakes.
            self.wake.borrow_and_update();
            match self.recent.after(&self.resource, self.taken) {
                Found::Changes(changes) => self.take(changes),
                Found::Nothing(revision) => {
                    self.taken = revision;
                    self.given = revision;
                    self.ended = self.wake.changed().await.is_err();
                }
                Found::Behind(published) => self.ended = !self.read_history(published).await,
                Found::Closed => self.ended = true,
            }
        }
    }

    fn progress(&mut self) -> u64 {
        if self.buffer.is_empty() && !self.ended {
            self.given = self.recent.progress(&self.resource, self.taken);
            self.taken = self.given;
        }
        self.given
    }
}
