//! Delete, finalizers, deletecollection.

use kinds::object::{self, Gvr, Object};
use serde_json::{Value, json};
use store::Error;

use super::{Api, Caller, ListOptions, Target, WriteOptions, fields::stamp, kind::Served};
use crate::{Status, admission::Verb, status::details};

/// How often a deletion that met another write is tried again.
const TRIES: usize = 32;
/// Namespaces that stay.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Objects that a deletecollection reads at a time.
const PIECE: usize = 200;

/// How to delete. The propagation policy is accepted and has no effect: nothing owns another object yet.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub resource_version: Option<String>,
    /// `propagationPolicy`.
    pub propagation_policy: Option<String>,
    /// `gracePeriodSeconds`.
    pub grace_period_seconds: Option<i64>,
    /// `dryRun=All`.
    pub dry_run: bool,
}

/// What a deletion did.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The object as it was last, or as it is while finalizers hold it back.
    pub object: Object,
    /// Whether it is gone.
    pub gone: bool,
    /// For `Warning:` headers.
    pub warnings: Vec<String>,
    answer: Value,
}

impl Deleted {
    /// What the client is answered: a `Status` of success, or the object that still waits for its finalizers.
    #[must_use]
    pub fn answer(&self) -> &Value {
        if self.gone { &self.answer } else { &self.object }
    }
}

impl Api {
    /// Deletes an object. One with finalizers only gets its `deletionTimestamp`, and goes with the last of them.
    ///
    /// # Errors
    /// 404; 409 when a precondition does not hold.
    pub async fn delete(
        &self,
        caller: &Caller,
        target: Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        let served = self.served(target.gvr)?;
        if target.subresource.is_some() {
            return Err(Status::method_not_allowed(served.kind, "delete"));
        }
        self.may_write(caller, &served, target, Verb::Delete).await?;
        let policy = options.propagation_policy.as_deref().unwrap_or("Background");
        if !["Background", "Foreground", "Orphan"].contains(&policy) {
            return Err(Status::bad_request(format!(
                "propagationPolicy: Unsupported value: {policy:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
            )));
        }
        for _ in 0..TRIES {
            if let Some(deleted) = self.try_delete(caller, &served, target, options).await? {
                return Ok(deleted);
            }
        }
        Err(Status::modified(served.kind, target.name))
    }

    /// One try; `None` if another write came between.
    async fn try_delete(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        target: Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let key = served.key(target.namespace, target.name)?;
        let entry = self.store.get(&key).await.map_err(|e| served.fail(&e))?;
        let entry = entry.ok_or_else(|| Status::not_found(served.kind, target.name))?;
        let old = served.load(&entry.value)?;
        check_preconditions(served, target.name, &old, options)?;
        let write_options = WriteOptions {
            dry_run: options.dry_run,
            ..WriteOptions::default()
        };
        let request = self.request(caller, Verb::Delete, target, Some(&old), None, &write_options);
        let warnings = self.admit(served, &request).await?;
        let answer = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": success_details(served, target.name, &old),
        });
        let deleted = |object, gone| {
            Ok(Some(Deleted {
                object,
                gone,
                warnings,
                answer,
            }))
        };

        if served.is_namespace() && IMMORTAL.contains(&target.name) {
            return Err(Status::forbidden(
                served.kind,
                target.name,
                "this namespace may not be deleted",
            ));
        }
        let held = served.is_namespace() || !object::finalizers(&old).is_empty();
        if held && object::is_deleting(&old) {
            return deleted(old, false);
        }
        let mut new = old;
        let written = if held {
            self.mark_deleted(served, &mut new);
            if options.dry_run {
                return deleted(new, false);
            }
            self.store.update(&key, entry.revision, served.store(&new)?).await
        } else {
            if options.dry_run {
                return deleted(new, true);
            }
            self.store.delete(&key, entry.revision, served.store(&new)?).await
        };
        match written {
            Ok(written) => {
                stamp(&mut new, written.revision);
                if served.is_namespace() {
                    self.shared.terminating.notify_one();
                }
                deleted(new, !held)
            }
            Err(Error::Conflict { .. }) => Ok(None),
            Err(error) => Err(served.fail(&error)),
        }
    }

    fn mark_deleted(&self, served: &Served<'_>, object: &mut Object) {
        let generation = object::generation(object).saturating_add(1);
        let metadata = object::metadata_mut(object);
        metadata.insert("deletionTimestamp".into(), self.clock.now_rfc3339().into());
        metadata.insert("deletionGracePeriodSeconds".into(), 0.into());
        if served.has_generation() {
            metadata.insert("generation".into(), generation.into());
        }
        if served.is_namespace() {
            object["status"]["phase"] = "Terminating".into();
        }
    }

    /// Deletes all objects that a list would give, and answers how many.
    ///
    /// # Errors
    /// Those of a list; the first of a deletion, but not that an object is gone already.
    pub async fn delete_collection(
        &self,
        caller: &Caller,
        gvr: &Gvr,
        namespace: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<usize, Status> {
        let served = self.served(gvr)?;
        let place = Target::new(gvr, namespace.unwrap_or_default(), "");
        self.may_write(caller, &served, place, Verb::DeleteCollection)
            .await?;
        let mut list = ListOptions {
            limit: if list.limit == 0 { PIECE } else { list.limit },
            ..list.clone()
        };
        let mut count = 0;
        loop {
            let page = self.list(caller, gvr, namespace, &list).await?;
            for object in &page.items {
                let target = Target::new(gvr, object::namespace(object), object::name(object));
                match self.delete(caller, target, options).await {
                    Ok(_) => count += 1,
                    Err(status) if status.is_not_found() => {}
                    Err(status) => return Err(status),
                }
            }
            match page.continue_token {
                Some(token) => {
                    list.continue_token = token;
                    list.resource_version = String::new();
                }
                None => return Ok(count),
            }
        }
    }
}

fn success_details(served: &Served<'_>, name: &str, old: &Object) -> Value {
    let mut details = details(&served.kind.group, &served.kind.plural, name);
    details["uid"] = object::uid(old).into();
    details
}

fn check_preconditions(
    served: &Served<'_>,
    name: &str,
    old: &Object,
    options: &DeleteOptions,
) -> Result<(), Status> {
    let (uid, revision) = (object::uid(old), object::revision(old).to_string());
    let wrong = |what: &str, asked: &str, is: &str| {
        let why =
            format!("Precondition failed: {what} in precondition: {asked}, {what} in object meta: {is}");
        Err(Status::conflict(served.kind, name, &why))
    };
    match (&options.uid, &options.resource_version) {
        (Some(asked), _) if asked != uid => wrong("UID", asked, uid),
        (_, Some(asked)) if *asked != revision => wrong("ResourceVersion", asked, &revision),
        _ => Ok(()),
    }
}
