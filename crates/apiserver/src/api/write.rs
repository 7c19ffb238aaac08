//! Create, update and `status`.

use kinds::{
    object::{self, Object},
    registry::{FieldError, Scope, reason},
};
use store::{Entry, Error};
use uuid::Uuid;

use super::{
    Api, Caller, Target, WriteOptions, Written,
    fields::{
        check_preconditions, differs_in_what_is_wanted, generate_name, keep_all_but_status,
        keep_server_fields, keep_status, place, same_but_times, stamp,
    },
    kind::Served,
};
use crate::{
    Status,
    admission::{Request, Verb},
};

/// How often a write that met another's is tried again when the client does not care which it changes.
const TRIES: usize = 32;
/// How often another name is tried for `generateName`.
const NAMES: usize = 8;

/// The body of a write, and what is known about it.
pub(super) struct Change {
    /// The object that is wanted.
    pub(super) object: Object,
    /// Whether its `managedFields` are already those after the write (an apply).
    pub(super) managed: bool,
}

impl Api {
    /// Creates an object. Its name may come from `metadata.generateName`.
    ///
    /// # Errors
    /// 409 `AlreadyExists`; 404 when the namespace is not there, 403 when it is being deleted; 422.
    pub async fn create(
        &self,
        caller: &Caller,
        target: Target<'_>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let served = self.served(target.gvr)?;
        let name = object::name(&object).to_owned();
        if let Err(status) = self.authorize(caller, "create", target.gvr, target.namespace, &name) {
            return Err(self.refused(caller, &served, target, Verb::Create, status).await);
        }
        if target.subresource.is_some() {
            return Err(Status::method_not_allowed(served.kind, "create"));
        }
        let generate = name.is_empty();
        let mut tries = if generate { NAMES } else { 1 };
        loop {
            tries -= 1;
            let mut object = object.clone();
            if generate {
                generate_name(&mut object);
            }
            let change = Change {
                object,
                managed: false,
            };
            match self
                .insert(caller, &served, target, change, options, Verb::Create)
                .await
            {
                Err(status) if status.is_already_exists() && tries > 0 => {}
                outcome => return outcome,
            }
        }
    }

    /// Replaces an object, or its status (`target.subresource`). Without `metadata.resourceVersion` whatever
    /// is stored is replaced.
    ///
    /// # Errors
    /// 404; 409 `Conflict` when the object is at another revision; 422.
    pub async fn update(
        &self,
        caller: &Caller,
        target: Target<'_>,
        object: Object,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let served = self.served(target.gvr)?;
        served.check_subresource(target.subresource)?;
        self.may_write(caller, &served, target, Verb::Update).await?;
        served.check_type(&object)?;
        self.change(caller, &served, target, options, Verb::Update, |_| {
            Ok(Some(Change {
                object: object.clone(),
                managed: false,
            }))
        })
        .await
    }

    /// Changes an object in place: `edit` says whether it changed anything, and is called again when another
    /// write came between. For the daemon's own small edits.
    pub(crate) async fn modify(
        &self,
        caller: &Caller,
        target: Target<'_>,
        options: &WriteOptions,
        edit: impl Fn(&mut Object) -> bool,
    ) -> Result<Written, Status> {
        let served = self.served(target.gvr)?;
        self.may_write(caller, &served, target, Verb::Update).await?;
        self.change(caller, &served, target, options, Verb::Update, |stored| {
            let mut object = stored.clone();
            Ok(edit(&mut object).then_some(Change {
                object,
                managed: false,
            }))
        })
        .await
    }

    pub(super) async fn may_write(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        target: Target<'_>,
        verb: Verb,
    ) -> Result<(), Status> {
        match self.authorize_target(caller, verb.as_str(), target) {
            Ok(()) => Ok(()),
            Err(status) => Err(self.refused(caller, served, target, verb, status).await),
        }
    }

    /// Stores a new object.
    pub(super) async fn insert(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        target: Target<'_>,
        change: Change,
        options: &WriteOptions,
        verb: Verb,
    ) -> Result<Written, Status> {
        let kind = served.kind;
        let Change { mut object, managed } = change;
        served.check_type(&object)?;
        place(&mut object, target, kind.scope)?;
        if !matches!(object::revision(&object), 0) {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let now = self.clock.now_rfc3339();
        let metadata = object::metadata_mut(&mut object);
        for server_sets in [
            "resourceVersion",
            "selfLink",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
        ] {
            metadata.remove(server_sets);
        }
        metadata.insert("uid".into(), Uuid::new_v4().to_string().into());
        metadata.insert("creationTimestamp".into(), now.as_str().into());
        if served.has_generation() {
            metadata.insert("generation".into(), 1.into());
        }
        let name = object::name(&object).to_owned();
        // Until the write is done, the namespace can't come to its end.
        let namespace = match kind.scope {
            Scope::Namespaced => Some(self.in_namespace(served, target.namespace, &name).await?),
            Scope::Cluster => None,
        };
        kind.set_defaults(&mut object);
        kind.admit(None, &mut object, &now);
        if served.is_namespace() {
            super::namespaces::begin(&mut object);
        }
        self.validate(served, target, None, &object)?;
        let mut warnings = self.unknown(served, &object, options);
        if !managed {
            self.track(served, None, &mut object, target, options, &now);
        }
        let target = Target {
            name: &name,
            ..target
        };
        let request = self.request(caller, verb, target, None, Some(&object), options);
        warnings.extend(self.admit(served, &request).await?);
        let key = served.key(target.namespace, &name)?;
        if options.dry_run {
            if self.store.get(&key).await.map_err(|e| served.fail(&e))?.is_some() {
                return Err(Status::already_exists(kind, &name));
            }
            return Ok(Written {
                object,
                created: true,
                changed: true,
                warnings,
            });
        }
        let (store, make) = (self.store.clone(), served.store(&object)?);
        // A task of its own, for a client that goes away must not take the namespace's guard with it while the
        // write is on its way.
        let written = tokio::spawn(async move {
            let _namespace = namespace;
            store.create(&key, make).await
        });
        let entry = written
            .await
            .map_err(Status::internal)?
            .map_err(|e| served.fail(&e))?;
        stamp(&mut object, entry.revision);
        Ok(Written {
            object,
            created: true,
            changed: true,
            warnings,
        })
    }

    /// Changes a stored object: `wanted` makes the new one from the stored one, and again when another write
    /// came between and the new one does not name a revision. `None` changes nothing.
    pub(super) async fn change(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        target: Target<'_>,
        options: &WriteOptions,
        verb: Verb,
        wanted: impl Fn(&Object) -> Result<Option<Change>, Status>,
    ) -> Result<Written, Status> {
        let key = served.key(target.namespace, target.name)?;
        for _ in 0..TRIES {
            let entry = self.store.get(&key).await.map_err(|e| served.fail(&e))?;
            let entry = entry.ok_or_else(|| Status::not_found(served.kind, target.name))?;
            let stored = served.load(&entry.value)?;
            let Some(change) = wanted(&stored)? else {
                return Ok(Written {
                    object: stored,
                    created: false,
                    changed: false,
                    warnings: Vec::new(),
                });
            };
            let outcome = self
                .replace(caller, served, target, options, verb, &entry, stored, change)
                .await?;
            if let Some(written) = outcome {
                return Ok(written);
            }
        }
        Err(Status::modified(served.kind, target.name))
    }

    /// One try to replace a stored object; `None` if another write came between.
    #[expect(
        clippy::too_many_arguments,
        reason = "one step of `change`, with all that it knows"
    )]
    async fn replace(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        target: Target<'_>,
        options: &WriteOptions,
        verb: Verb,
        entry: &Entry,
        old: Object,
        change: Change,
    ) -> Result<Option<Written>, Status> {
        let kind = served.kind;
        let Change {
            object: mut new,
            managed,
        } = change;
        place(&mut new, target, kind.scope)?;
        check_preconditions(served, target.name, &old, &new)?;
        keep_server_fields(&old, &mut new);
        if target.subresource.is_some() {
            keep_all_but_status(&old, &mut new, managed);
        } else if kind.has_status {
            keep_status(&old, &mut new);
        }
        let now = self.clock.now_rfc3339();
        kind.set_defaults(&mut new);
        kind.admit(Some(&old), &mut new, &now);
        if served.has_generation() && differs_in_what_is_wanted(&old, &new) {
            object::metadata_mut(&mut new).insert(
                "generation".into(),
                (object::generation(&old).saturating_add(1)).into(),
            );
        }
        if !managed {
            self.track(served, Some(&old), &mut new, target, options, &now);
        }
        if same_but_times(&old, &new) {
            return Ok(Some(Written {
                object: old,
                created: false,
                changed: false,
                warnings: Vec::new(),
            }));
        }
        self.validate(served, target, Some(&old), &new)?;
        let mut warnings = self.unknown(served, &new, options);
        let request = self.request(caller, verb, target, Some(&old), Some(&new), options);
        warnings.extend(self.admit(served, &request).await?);
        if options.dry_run {
            return Ok(Some(Written {
                object: new,
                created: false,
                changed: true,
                warnings,
            }));
        }
        // The last finalizer is gone from an object that waits for it.
        let ends = object::is_deleting(&new) && object::finalizers(&new).is_empty() && !served.is_namespace();
        let make = served.store(&new)?;
        let written = if ends {
            self.store.delete(&entry.key, entry.revision, make).await
        } else {
            self.store.update(&entry.key, entry.revision, make).await
        };
        match written {
            Ok(written) => {
                stamp(&mut new, written.revision);
                if served.is_namespace() && object::is_deleting(&new) {
                    self.shared.terminating.notify_one();
                }
                Ok(Some(Written {
                    object: new,
                    created: false,
                    changed: true,
                    warnings,
                }))
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(served.fail(&error)),
        }
    }

    fn validate(
        &self,
        served: &Served<'_>,
        target: Target<'_>,
        old: Option<&Object>,
        new: &Object,
    ) -> Result<(), Status> {
        let mut errors = served.kind.validate(new);
        if let Some(old) = old {
            // What was wrong before (to an older version of the rules it was right) holds up no other change.
            if !errors.is_empty() {
                let before = served.kind.validate(old);
                errors.retain(|error| !before.contains(error));
            }
            if target.subresource.is_none() {
                errors.extend(served.kind.validate_update(old, new));
            }
            if object::is_deleting(old) {
                let had = object::finalizers(old);
                let added: Vec<_> = object::finalizers(new)
                    .into_iter()
                    .filter(|f| !had.contains(f))
                    .collect();
                if !added.is_empty() {
                    let message = format!(
                        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                    );
                    errors.push(FieldError::new("metadata.finalizers", reason::FORBIDDEN, message));
                }
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Status::invalid(served.kind, object::name(new), &errors))
        }
    }

    fn unknown(&self, served: &Served<'_>, object: &Object, options: &WriteOptions) -> Vec<String> {
        if options.ignore_unknown {
            return Vec::new();
        }
        let unknown = served.kind.unknown_fields(object);
        unknown
            .into_iter()
            .map(|field| format!("unknown field {field:?}"))
            .collect()
    }

    /// Brings `managedFields` up to date. Those of events and leases would be larger than the objects.
    fn track(
        &self,
        served: &Served<'_>,
        old: Option<&Object>,
        new: &mut Object,
        target: Target<'_>,
        options: &WriteOptions,
        now: &str,
    ) {
        if served.kind.ephemeral {
            return;
        }
        let manager = if options.manager.is_empty() {
            "unknown"
        } else {
            &options.manager
        };
        let (version, schema) = (served.api_version(), served.schema());
        merge::managed::update_after_write(old, new, manager, &version, target.subresource, now, schema);
    }

    pub(super) fn request<'a>(
        &self,
        caller: &'a Caller,
        verb: Verb,
        target: Target<'a>,
        old: Option<&'a Object>,
        new: Option<&'a Object>,
        options: &WriteOptions,
    ) -> Request<'a> {
        Request {
            caller,
            verb,
            gvr: target.gvr,
            namespace: target.namespace,
            name: target.name,
            old,
            new,
            subresource: target.subresource,
            dry_run: options.dry_run,
        }
    }
}

impl Served<'_> {
    /// The body must be of the kind that the path names.
    pub(super) fn check_type(&self, object: &Object) -> Result<(), Status> {
        let (version, kind) = (self.api_version(), object::kind(object));
        if object::api_version(object) != version {
            return Err(Status::bad_request(format!(
                "the API version in the data ({}) does not match the expected API version ({version})",
                object::api_version(object)
            )));
        }
        if kind != self.kind.kind {
            return Err(Status::bad_request(format!(
                "the kind in the data ({kind}) does not match the expected kind ({})",
                self.kind.kind
            )));
        }
        Ok(())
    }

    /// Whether `metadata.generation` counts changes: only where a status can say which it has seen.
    pub(super) fn has_generation(&self) -> bool {
        self.kind.has_status && !self.is_namespace()
    }

    pub(super) fn is_namespace(&self) -> bool {
        self.kind.group.is_empty() && self.kind.kind == "Namespace"
    }
}
