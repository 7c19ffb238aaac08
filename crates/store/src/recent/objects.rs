//! The objects of an ephemeral resource.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::sqlite::Ephemeral;

/// The objects of an ephemeral resource.
pub(super) struct Objects {
    pub(super) limits: Ephemeral,
    pub(super) by_name: BTreeMap<(String, String), Held>,
    /// By revision, that is by age.
    pub(super) by_age: BTreeMap<u64, (String, String)>,
    pub(super) bytes: usize,
}

pub(super) struct Held {
    pub(super) revision: u64,
    pub(super) value: Bytes,
    /// Unix seconds of the last write.
    pub(super) written: i64,
}

impl Objects {
    pub(super) fn new(limits: &Ephemeral) -> Self {
        Self {
            limits: limits.clone(),
            by_name: BTreeMap::new(),
            by_age: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub(super) fn insert(&mut self, name: (String, String), held: Held) {
        self.bytes += held.value.len();
        self.by_age.insert(held.revision, name.clone());
        self.by_name.insert(name, held);
    }

    pub(super) fn remove(&mut self, name: &(String, String)) -> Option<Held> {
        let held = self.by_name.remove(name)?;
        self.by_age.remove(&held.revision);
        self.bytes -= held.value.len();
        Some(held)
    }
}
