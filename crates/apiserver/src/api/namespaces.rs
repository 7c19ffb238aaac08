//! Which namespaces take new objects, and emptying those that are deleted.

use std::time::Duration;

use kinds::{
    gvr,
    object::{self, Gvr, Object},
    registry::Scope,
};
use serde_json::{Value, json};
use store::Error;
use tokio::sync::OwnedRwLockReadGuard;

use super::{Api, Caller, DeleteOptions, ListOptions, Target, WriteOptions, kind::Served};
use crate::Status;

/// How long to wait before looking again at a namespace whose objects wait for their finalizers.
const AGAIN: Duration = Duration::from_millis(500);
/// And when nothing is known to be wrong.
const AT_LATEST: Duration = Duration::from_secs(60);

/// Kinds whose objects go first, because others are what they need to end well; all others follow.
const FIRST: [&str; 2] = ["virtualmachines", "kustomizations"];

/// What every new namespace has.
pub(super) fn begin(namespace: &mut Object) {
    if !namespace["spec"].is_object() {
        namespace["spec"] = json!({});
    }
    namespace["spec"]["finalizers"] = json!(["kubernetes"]);
}

impl Api {
    /// Makes namespaces that must be there, such as `default` and `kube-system`. Those that are there stay as
    /// they are.
    ///
    /// # Errors
    /// The store's.
    pub async fn ensure_namespaces(&self, names: &[&str]) -> Result<(), Status> {
        let (caller, gvr) = (Caller::system("namespaces"), gvr::namespaces());
        for name in names {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let options = WriteOptions {
                manager: "selvedge".into(),
                ..WriteOptions::default()
            };
            match self
                .create(&caller, Target::new(&gvr, "", ""), namespace, &options)
                .await
            {
                Err(status) if !status.is_already_exists() => return Err(status),
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses new objects in namespaces that are not there or are being deleted. While the guard lives, the
    /// namespace can't come to its end.
    pub(super) async fn in_namespace(
        &self,
        served: &Served<'_>,
        namespace: &str,
        name: &str,
    ) -> Result<OwnedRwLockReadGuard<()>, Status> {
        let guard = self.shared.namespaces.clone().read_owned().await;
        let gvr = gvr::namespaces();
        let namespaces = self.served(&gvr)?;
        // Checks that there is one.
        served.key(namespace, name)?;
        let entry = self.store.get(&namespaces.key("", namespace)?).await;
        let Some(entry) = entry.map_err(|e| namespaces.fail(&e))? else {
            return Err(Status::not_found(namespaces.kind, namespace));
        };
        if object::is_deleting(&super::decode(&entry.value)?) {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            return Err(Status::forbidden(served.kind, name, &why).with_causes([(
                "NamespaceTerminating".into(),
                format!("namespace {namespace} is being terminated"),
                "metadata.namespace".into(),
            )]));
        }
        Ok(guard)
    }

    /// Empties deleted namespaces and ends them, for ever. To be run once, as a task of its own.
    pub async fn run_namespaces(&self) {
        loop {
            let wait = match self.end_namespaces().await {
                Ok(true) => AT_LATEST,
                Ok(false) => AGAIN,
                Err(status) => {
                    tracing::warn!(error = %status, "deleted namespaces could not be emptied; trying again");
                    AGAIN
                }
            };
            // Elapsed or notified: both mean to look again.
            let _ = tokio::time::timeout(wait, self.shared.terminating.notified()).await;
        }
    }

    /// One look at all namespaces that are being deleted. Whether none is left.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_namespaces(&self) -> Result<bool, Status> {
        let (caller, gvr) = (Caller::system("namespaces"), gvr::namespaces());
        let options = ListOptions {
            field_selector: "status.phase=Terminating".into(),
            ..ListOptions::default()
        };
        let mut all_ended = true;
        for namespace in self.list(&caller, &gvr, None, &options).await?.items {
            all_ended &= self.end_namespace(&caller, &namespace).await?;
        }
        Ok(all_ended)
    }

    async fn end_namespace(&self, caller: &Caller, namespace: &Object) -> Result<bool, Status> {
        let name = object::name(namespace);
        let mut kinds: Vec<Gvr> = self
            .registry
            .iter()
            .filter(|kind| kind.scope == Scope::Namespaced && kind.stored_as.is_none())
            .map(kinds::registry::KindDef::gvr)
            .collect();
        kinds.sort_by_key(|gvr| {
            (
                FIRST
                    .iter()
                    .position(|first| *first == gvr.plural)
                    .unwrap_or(FIRST.len()),
                gvr.plural == "events",
            )
        });
        let mut waits = Vec::new();
        for gvr in &kinds {
            let all = ListOptions::default();
            self.delete_collection(caller, gvr, Some(name), &all, &DeleteOptions::default())
                .await?;
            let left = self.list_raw(caller, gvr, Some(name), &all).await?.items.len();
            if left > 0 {
                waits.push(format!(
                    "{} has {left} resource instances",
                    super::super::status::qualified(self.served(gvr)?.kind,)
                ));
                // What comes later may be needed to end these.
                if FIRST.contains(&gvr.plural.as_str()) {
                    break;
                }
            }
        }
        if waits.is_empty() {
            return self.remove_namespace(&kinds, namespace).await;
        }
        self.say_what_is_left(caller, namespace, &waits).await?;
        Ok(false)
    }

    /// Deletes an empty namespace.
    async fn remove_namespace(&self, kinds: &[Gvr], namespace: &Object) -> Result<bool, Status> {
        // From here on no object can be made in any namespace until this is done.
        let _alone = self.shared.namespaces.write().await;
        let (caller, namespaces, name) = (
            Caller::system("namespaces"),
            gvr::namespaces(),
            object::name(namespace),
        );
        for gvr in kinds {
            let some = ListOptions {
                limit: 1,
                ..ListOptions::default()
            };
            if !self
                .list_raw(&caller, gvr, Some(name), &some)
                .await?
                .items
                .is_empty()
            {
                return Ok(false);
            }
        }
        let served = self.served(&namespaces)?;
        let key = served.key("", name)?;
        let Some(entry) = self.store.get(&key).await.map_err(|e| served.fail(&e))? else {
            return Ok(true);
        };
        let mut last = super::decode(&entry.value)?;
        if !object::finalizers(&last).is_empty() {
            return Ok(false);
        }
        last["spec"]["finalizers"] = json!([]);
        match self
            .store
            .delete(&key, entry.revision, served.store(&last)?)
            .await
        {
            Ok(_) | Err(Error::NotFound(_)) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(served.fail(&error)),
        }
    }

    /// Writes down what holds a namespace back, for `kubectl get ns -o yaml`.
    async fn say_what_is_left(
        &self,
        caller: &Caller,
        namespace: &Object,
        waits: &[String],
    ) -> Result<(), Status> {
        let mut conditions: Vec<kinds::condition::Condition> = namespace
            .pointer("/status/conditions")
            .and_then(|conditions| serde_json::from_value(conditions.clone()).ok())
            .unwrap_or_default();
        let message = format!("Some resources are remaining: {}", waits.join(", "));
        let remaining =
            kinds::condition::Condition::yes("NamespaceContentRemaining", "SomeResourcesRemain", message);
        kinds::condition::set(&mut conditions, remaining, &self.clock.now_rfc3339());
        let mut changed = namespace.clone();
        changed["status"]["conditions"] = serde_json::to_value(conditions).unwrap_or(Value::Null);
        object::metadata_mut(&mut changed).remove("resourceVersion");
        let gvr = gvr::namespaces();
        let target = Target::new(&gvr, "", object::name(namespace)).status();
        let options = WriteOptions {
            manager: "selvedge".into(),
            ..WriteOptions::default()
        };
        match self.update(caller, target, changed, &options).await {
            Err(status) if !status.is_not_found() => Err(status),
            _ => Ok(()),
        }
    }
}
