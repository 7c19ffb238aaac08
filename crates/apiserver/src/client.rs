//! The API for reconcilers in this process.

use std::sync::Arc;

use kinds::object::{Gvr, Object};
use serde_json::Value;

use crate::{Api, Caller, Status};

/// The API as one of the daemon's own reconcilers sees it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    api: Api,
    caller: Caller,
    manager: Arc<str>,
}

/// A list and the revision that it shows; watch from there.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// The objects.
    pub items: Vec<Object>,
    /// The revision.
    pub revision: u64,
}

/// What an apply did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The object was made.
    Created,
    /// It was changed.
    Changed,
    /// It was so already; nothing was written.
    Unchanged,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// The object exists with this content (created or changed).
    Applied(Object),
    /// It is gone; this was its last content.
    Deleted(Object),
}

/// A stream of watch events.
pub struct Watch {
    _todo: (),
}

impl Watch {
    /// The next event; `None` when the watch has ended and the caller should list again.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        None
    }
}

/// `type` of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Something went as it should.
    Normal,
    /// Something needs a look.
    Warning,
}

impl Client {
    /// The API for the reconciler `manager`; its writes carry that field manager and pass the rule that only
    /// Git writes.
    #[must_use]
    pub fn new(api: Api, manager: &str) -> Self {
        let caller =
            Caller { user: format!("system:selvedge:{manager}"), groups: vec!["system:selvedge".into(), "system:masters".into()] };
        Self { api, caller, manager: manager.into() }
    }

    /// The API beneath.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// An object, if it exists. `namespace` is empty for kinds of cluster scope.
    pub async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Object>, Status> {
        let _ = (gvr, namespace, name, &self.caller, &self.manager);
        Err(Status::new(501, "NotImplemented", "get"))
    }

    /// All objects of a resource, in one namespace or in all.
    pub async fn list(&self, gvr: &Gvr, namespace: Option<&str>) -> Result<List, Status> {
        let _ = (gvr, namespace);
        Err(Status::new(501, "NotImplemented", "list"))
    }

    /// Changes of a resource after a revision.
    pub async fn watch(&self, gvr: &Gvr, namespace: Option<&str>, after: u64) -> Result<Watch, Status> {
        let _ = (gvr, namespace, after);
        Err(Status::new(501, "NotImplemented", "watch"))
    }

    /// Server-side apply with this client's field manager. `force` takes fields from other managers.
    /// With `dry_run` nothing is written but the answer is the same.
    pub async fn apply(&self, object: &Object, force: bool, dry_run: bool) -> Result<(Applied, Object), Status> {
        let _ = (object, force, dry_run);
        Err(Status::new(501, "NotImplemented", "apply"))
    }

    /// Creates an object.
    pub async fn create(&self, object: &Object) -> Result<Object, Status> {
        let _ = object;
        Err(Status::new(501, "NotImplemented", "create"))
    }

    /// Replaces an object; its `metadata.resourceVersion`, if set, must be the stored one.
    pub async fn update(&self, object: &Object) -> Result<Object, Status> {
        let _ = object;
        Err(Status::new(501, "NotImplemented", "update"))
    }

    /// Deletes an object; gone already is fine. Finalizers hold it back as usual.
    pub async fn delete(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<(), Status> {
        let _ = (gvr, namespace, name);
        Err(Status::new(501, "NotImplemented", "delete"))
    }

    /// Replaces `status` when it differs; a conflicting write is retried; an object that is gone is fine.
    /// Returns whether something was written.
    pub async fn set_status(&self, gvr: &Gvr, namespace: &str, name: &str, status: Value) -> Result<bool, Status> {
        let _ = (gvr, namespace, name, status);
        Err(Status::new(501, "NotImplemented", "set_status"))
    }

    /// Adds or removes a finalizer; there already (or gone) is fine.
    pub async fn set_finalizer(&self, gvr: &Gvr, namespace: &str, name: &str, finalizer: &str, present: bool) -> Result<(), Status> {
        let _ = (gvr, namespace, name, finalizer, present);
        Err(Status::new(501, "NotImplemented", "set_finalizer"))
    }

    /// Records an Event about an object. The same event again raises its count. Never fails: an event that
    /// can't be recorded is logged.
    pub async fn event(&self, regarding: &Object, kind: EventType, reason: &str, message: &str) {
        let _ = (regarding, kind, reason, message);
    }
}
