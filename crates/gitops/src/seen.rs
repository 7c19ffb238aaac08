//! Telling changes that matter from those that only write a status.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use kinds::{
    flux,
    object::{self, Object},
};
use reconcile::Key;

/// Generation, request for a run, and whether it is being deleted: of each object the last ones seen.
#[derive(Default)]
pub(crate) struct Seen(Mutex<HashMap<Key, (String, i64, String, bool)>>);

impl Seen {
    /// Whether an object differs from what was seen of it in more than its status.
    pub(crate) fn is_new(&self, object: &Object) -> bool {
        let mark = (
            object::uid(object).to_owned(),
            object::generation(object),
            object::annotation(object, flux::REQUESTED_AT)
                .unwrap_or_default()
                .to_owned(),
            object::is_deleting(object),
        );
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An event of a deletion looks like the object before it; the run that is told finds it gone.
        if object::is_deleting(object) {
            seen.remove(&Key::of(object));
            return true;
        }
        seen.insert(Key::of(object), mark.clone()) != Some(mark)
    }
}
