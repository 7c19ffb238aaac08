//! The end of a Kustomization.

use std::collections::HashMap;

use kinds::{
    flux::Kustomization,
    object::{self, Object, ObjectKey},
};
use reconcile::{Key, Outcome};

use super::{FINALIZER, Kustomizations, gvr, inventory_of};
use crate::{
    apply::{self, How},
    desired::Desired,
    observe, plan,
};

impl Kustomizations {
    /// Deletes the objects of a Kustomization that is being deleted, if it prunes, and lets it go.
    pub(super) async fn finalize(
        &self,
        key: &Key,
        object: &Object,
        kustomization: &Kustomization,
    ) -> Outcome {
        if !object::finalizers(object).contains(&FINALIZER) {
            return Outcome::Done;
        }
        let delete = match kustomization.spec.deletion_policy.as_deref() {
            Some("Delete" | "WaitForTermination") => true,
            Some("Orphan") => false,
            _ => kustomization.spec.prune && !kustomization.spec.suspend,
        };
        self.owned.forget_all(key);
        if delete {
            let registry = self.client.api().registry();
            let inventory = inventory_of(kustomization);
            let resource = |key: &ObjectKey| registry.by_kind(&key.group, &key.kind).map(|kind| kind.gvr());
            let keys = inventory
                .iter()
                .filter_map(|key| Some((key.clone(), resource(key)?)));
            let live = match observe::observe(&self.client, keys).await {
                Ok(live) => live,
                Err(status) => return Outcome::Failed(status.to_string()),
            };
            let all: Vec<&ObjectKey> = inventory.iter().collect();
            let held = match self.held_by_others(key, &all).await {
                Ok(held) => held,
                Err(status) => return Outcome::Failed(status.to_string()),
            };
            let nothing = Desired::default();
            let plan = plan::plan(&nothing, &inventory, &live, &HashMap::new(), &held, key, true);
            let how = How {
                concurrency: 1,
                force: false,
            };
            let done = apply::carry_out(&self.client, registry, &nothing, &[], &plan, how).await;
            if let Some((key, why)) = done.undeleted.first() {
                return Outcome::Failed(format!("can't delete {key}: {why}"));
            }
            for other in plan.left_to {
                self.signal.key(other);
            }
        }
        match self
            .client
            .set_finalizer(&gvr(), &key.namespace, &key.name, FINALIZER, false)
            .await
        {
            Ok(()) => Outcome::Done,
            Err(status) => Outcome::Failed(status.to_string()),
        }
    }
}
