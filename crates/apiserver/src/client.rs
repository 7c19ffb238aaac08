//! The API for reconcilers in this process.

mod events;

use std::sync::Arc;

use kinds::object::{self, Gvk, Gvr, Object};
use serde_json::{Value, json};

use self::events::Budget;
use crate::{
    Api, Caller, Status,
    api::{
        DeleteOptions, ListOptions, ObjectWatch, Patch, Target, WatchKind, WatchOptions, WriteOptions, decode,
    },
};

/// The API as one of the daemon's own reconcilers sees it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    api: Api,
    caller: Caller,
    manager: Arc<str>,
    events: Arc<Budget>,
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
pub struct Watch(ObjectWatch);

impl Watch {
    /// The next event; `None` when the watch has ended and the caller should list again. May be dropped before
    /// it is ready without loss.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        let item = self.0.next().await?;
        let object = match decode(&item.object) {
            Ok(object) => object,
            Err(error) => {
                tracing::error!(%error, "a watch ends");
                return None;
            }
        };
        match item.kind {
            WatchKind::Added | WatchKind::Modified => Some(WatchEvent::Applied(object)),
            WatchKind::Deleted => Some(WatchEvent::Deleted(object)),
            // No bookmarks were asked for; after an error comes nothing.
            WatchKind::Bookmark | WatchKind::Error => None,
        }
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
        Self {
            api,
            caller: Caller::system(manager),
            manager: manager.into(),
            events: Arc::default(),
        }
    }

    /// The API beneath.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// An object, if it exists. `namespace` is empty for kinds of cluster scope.
    ///
    /// # Errors
    /// For a resource that is not served, or the store's.
    pub async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Object>, Status> {
        // Told apart from an object that is not there.
        self.api.served(gvr)?;
        missing_is_none(
            self.api
                .get(&self.caller, Target::new(gvr, namespace, name))
                .await,
        )
    }

    /// All objects of a resource, in one namespace or in all.
    ///
    /// # Errors
    /// For a resource that is not served, or the store's.
    pub async fn list(&self, gvr: &Gvr, namespace: Option<&str>) -> Result<List, Status> {
        let page = self
            .api
            .list(&self.caller, gvr, namespace, &ListOptions::default())
            .await?;
        Ok(List {
            items: page.items,
            revision: page.revision,
        })
    }

    /// Changes of a resource after a revision.
    ///
    /// # Errors
    /// For a resource that is not served. A revision that is no longer kept ends the watch at once.
    pub async fn watch(&self, gvr: &Gvr, namespace: Option<&str>, after: u64) -> Result<Watch, Status> {
        let options = WatchOptions {
            resource_version: after.to_string(),
            // After 0 is after nothing: everything that is there is given out first.
            ..WatchOptions::default()
        };
        self.api
            .watch(&self.caller, gvr, namespace, &options)
            .await
            .map(Watch)
    }

    /// Server-side apply with this client's field manager. `force` takes fields from other managers.
    /// With `dry_run` nothing is written but the answer is the same.
    ///
    /// # Errors
    /// 404 for a kind that is not served or a namespace that is not there; 409 for conflicts; 422.
    pub async fn apply(
        &self,
        object: &Object,
        force: bool,
        dry_run: bool,
    ) -> Result<(Applied, Object), Status> {
        let gvr = self.resource_of(object)?;
        let target = Target::new(&gvr, object::namespace(object), object::name(object));
        if target.name.is_empty() {
            return Err(Status::bad_request("an object to apply has no metadata.name"));
        }
        let options = WriteOptions {
            force,
            dry_run,
            ..self.options()
        };
        let written = self
            .api
            .patch(&self.caller, target, Patch::Apply(object.clone()), &options)
            .await?;
        let applied = match (written.created, written.changed) {
            (true, _) => Applied::Created,
            (false, true) => Applied::Changed,
            (false, false) => Applied::Unchanged,
        };
        Ok((applied, written.object))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// As [`Api::create`].
    pub async fn create(&self, object: &Object) -> Result<Object, Status> {
        let gvr = self.resource_of(object)?;
        let target = Target::new(&gvr, object::namespace(object), "");
        Ok(self
            .api
            .create(&self.caller, target, object.clone(), &self.options())
            .await?
            .object)
    }

    /// Replaces an object; its `metadata.resourceVersion`, if set, must be the stored one.
    ///
    /// # Errors
    /// As [`Api::update`].
    pub async fn update(&self, object: &Object) -> Result<Object, Status> {
        let gvr = self.resource_of(object)?;
        let target = Target::new(&gvr, object::namespace(object), object::name(object));
        Ok(self
            .api
            .update(&self.caller, target, object.clone(), &self.options())
            .await?
            .object)
    }

    /// Deletes an object; gone already is fine. Finalizers hold it back as usual.
    ///
    /// # Errors
    /// For a resource that is not served, or the store's.
    pub async fn delete(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<(), Status> {
        self.api.served(gvr)?;
        let target = Target::new(gvr, namespace, name);
        missing_is_none(
            self.api
                .delete(&self.caller, target, &DeleteOptions::default())
                .await,
        )
        .map(|_| ())
    }

    /// Replaces `status` when it differs; a conflicting write is retried; an object that is gone is fine.
    /// Returns whether something was written.
    ///
    /// # Errors
    /// 422 for a status that the kind does not allow.
    pub async fn set_status(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        status: Value,
    ) -> Result<bool, Status> {
        let served = self.api.served(gvr)?;
        let body = json!({
            "apiVersion": served.api_version(), "kind": served.kind.kind, "metadata": {"name": name}, "status": status,
        });
        let target = Target::new(gvr, namespace, name).status();
        let written = self.api.update(&self.caller, target, body, &self.options()).await;
        Ok(missing_is_none(written)?.is_some_and(|written| written.changed))
    }

    /// Adds or removes a finalizer; there already (or gone) is fine.
    ///
    /// # Errors
    /// 422 when a finalizer is added to an object that is being deleted.
    pub async fn set_finalizer(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        finalizer: &str,
        present: bool,
    ) -> Result<(), Status> {
        self.api.served(gvr)?;
        let target = Target::new(gvr, namespace, name);
        let edit = |object: &mut Object| {
            let mut finalizers: Vec<&str> = object::finalizers(object);
            if finalizers.contains(&finalizer) == present {
                return false;
            }
            if present {
                finalizers.push(finalizer);
            } else {
                finalizers.retain(|f| *f != finalizer);
            }
            let finalizers = json!(finalizers);
            object::metadata_mut(object).insert("finalizers".into(), finalizers);
            true
        };
        let written = self.api.modify(&self.caller, target, &self.options(), edit).await;
        missing_is_none(written).map(|_| ())
    }

    /// Records an Event about an object. The same event again raises its count. Never fails: an event that
    /// can't be recorded is logged.
    pub async fn event(&self, regarding: &Object, kind: EventType, reason: &str, message: &str) {
        if let Err(status) = self.record_event(regarding, kind, reason, message).await {
            tracing::warn!(error = %status, object = %kinds::ObjectKey::of(regarding), reason, message, "an event could not be recorded");
        }
    }

    fn options(&self) -> WriteOptions {
        WriteOptions {
            manager: self.manager.to_string(),
            ignore_unknown: true,
            ..WriteOptions::default()
        }
    }

    fn resource_of(&self, object: &Object) -> Result<Gvr, Status> {
        let gvk = Gvk::of(object);
        let Some(kind) = self.api.registry().by_gvk(&gvk) else {
            return Err(Status::new(
                404,
                "NotFound",
                format!("the kind {gvk} is not served"),
            ));
        };
        Ok(Gvr {
            group: gvk.group,
            version: gvk.version,
            plural: kind.plural.clone(),
        })
    }
}

fn missing_is_none<T>(outcome: Result<T, Status>) -> Result<Option<T>, Status> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}
