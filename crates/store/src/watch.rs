//! The stream that a watcher holds.

use std::sync::Arc;

use async_trait::async_trait;

use crate::Change;

/// What a kind of store gives to [`Watch::new`].
#[async_trait]
pub trait Changes: Send {
    /// The next change, oldest first, without gaps; `None` at the end. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Arc<Change>>;

    /// The revision up to which every change has been given out.
    fn progress(&mut self) -> u64;
}

/// A stream of changes. Ends when the watcher fell behind the kept history or the store was closed; the
/// client then lists again.
pub struct Watch(Box<dyn Changes>);

impl Watch {
    /// A watch over what a store gives.
    #[must_use]
    pub fn new(changes: Box<dyn Changes>) -> Self {
        Self(changes)
    }

    /// The next change; `None` at the end. May be dropped before it is ready (in a `select!`) without loss.
    pub async fn next(&mut self) -> Option<Arc<Change>> {
        self.0.next().await
    }

    /// The revision up to which this watch has given out every change of its resource: what a bookmark may
    /// name. Rises with other resources' writes too when nothing waits to be given out.
    pub fn progress(&mut self) -> u64 {
        self.0.progress()
    }
}
