//! JSON, merge, strategic and apply patches.

use std::collections::BTreeSet;

use kinds::{
    Object,
    object::{self},
};
use merge::{
    apply::{ApplyError, ApplyOptions, Conflict},
    managed,
};
use serde_json::Value;

use super::{Api, Caller, Target, WriteOptions, Written, kind::Served, write::Change};
use crate::{Status, admission::Verb};

/// A patch, by its content type.
#[derive(Clone, Debug)]
pub enum Patch {
    /// `application/json-patch+json`.
    Json(Value),
    /// `application/merge-patch+json`.
    Merge(Value),
    /// `application/strategic-merge-patch+json`.
    Strategic(Value),
    /// `application/apply-patch+yaml`.
    Apply(Value),
}

impl Api {
    /// Patches an object or its status. A write of another in between is no conflict: the patch is made again on
    /// what is there then. An apply makes the object if there is none.
    ///
    /// # Errors
    /// 404; 409 `Conflict` with the field managers as causes; 400 and 422 for patches that can't be carried out.
    pub async fn patch(
        &self,
        caller: &Caller,
        target: Target<'_>,
        patch: Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let served = self.served(target.gvr)?;
        served.check_subresource(target.subresource)?;
        let verb = if matches!(patch, Patch::Apply(_)) {
            Verb::Apply
        } else {
            Verb::Patch
        };
        self.may_write(caller, &served, target, verb).await?;
        match patch {
            Patch::Apply(applied) => self.apply(caller, &served, target, applied, options).await,
            patch => {
                self.change(caller, &served, target, options, verb, |stored| {
                    let mut object = stored.clone();
                    carry_out(&served, &patch, &mut object)?;
                    // Whoever patches need not know the revision; one in the patch is held against the stored one.
                    Ok(Some(Change {
                        object,
                        managed: false,
                    }))
                })
                .await
            }
        }
    }

    async fn apply(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        target: Target<'_>,
        applied: Object,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        if options.manager.is_empty() {
            let why = "fieldManager: Required value: is required for apply patch";
            return Err(Status::new(
                422,
                "Invalid",
                format!("PatchOptions.meta.k8s.io \"\" is invalid: {why}"),
            )
            .with_causes([(
                "FieldValueRequired".into(),
                "Required value: is required for apply patch".into(),
                "fieldManager".into(),
            )]));
        }
        served.check_type(&applied)?;
        let applied = appliable(served, target, applied);
        let now = self.clock.now_rfc3339();
        let merge_options = ApplyOptions {
            manager: &options.manager,
            force: options.force,
            subresource: target.subresource,
            now: &now,
            schema: served.schema(),
        };
        let merged = |live: Option<&Object>| {
            let outcome = merge::apply::server_side_apply(live, &applied, &merge_options);
            let outcome = match (outcome, live) {
                (Err(ApplyError::Conflicts(conflicts)), Some(live))
                    if moves_over(live, &conflicts, &merge_options) =>
                {
                    let force = ApplyOptions {
                        force: true,
                        ..merge_options
                    };
                    merge::apply::server_side_apply(Some(live), &applied, &force)
                }
                (outcome, _) => outcome,
            };
            outcome.map_err(|error| apply_failed(served, target.name, error))
        };
        // Another may make or delete the object in between: then it is looked at once more.
        for _ in 0..3 {
            let changed = self
                .change(caller, served, target, options, Verb::Apply, |stored| {
                    let outcome = merged(Some(stored))?;
                    Ok(outcome.changed.then_some(Change {
                        object: outcome.object,
                        managed: true,
                    }))
                })
                .await;
            match changed {
                Err(status) if is_missing(&status, served, target) => {}
                outcome => return outcome,
            }
            if target.subresource.is_some() {
                return Err(Status::not_found(served.kind, target.name));
            }
            if object::revision(&applied) > 0 || !object::uid(&applied).is_empty() {
                let why = "the object has a uid or resourceVersion but does not exist";
                return Err(Status::conflict(served.kind, target.name, why));
            }
            let change = Change {
                object: merged(None)?.object,
                managed: true,
            };
            match self
                .insert(caller, served, target, change, options, Verb::Apply)
                .await
            {
                Err(status) if status.is_already_exists() && !options.dry_run => {}
                outcome => return outcome,
            }
        }
        Err(Status::modified(served.kind, target.name))
    }
}

/// What of a configuration this request may write.
fn appliable(served: &Served<'_>, target: Target<'_>, mut applied: Object) -> Object {
    if object::name(&applied).is_empty() {
        object::metadata_mut(&mut applied).insert("name".into(), target.name.into());
    }
    if let Some(map) = applied.as_object_mut()
        && served.kind.has_status
    {
        match target.subresource {
            None => {
                map.remove("status");
            }
            Some(_) => {
                map.retain(|name, _| ["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()));
                if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                    metadata.retain(|name, _| {
                        ["name", "namespace", "uid", "resourceVersion"].contains(&name.as_str())
                    });
                }
            }
        }
    }
    applied
}

/// Whether an answer says that the object of this request is not there (not its namespace).
fn is_missing(status: &Status, served: &Served<'_>, target: Target<'_>) -> bool {
    status.is_not_found()
        && status.details.get("name").and_then(Value::as_str) == Some(target.name)
        && status.details.get("kind").and_then(Value::as_str) == Some(&served.kind.plural)
}

fn carry_out(served: &Served<'_>, patch: &Patch, object: &mut Object) -> Result<(), Status> {
    let outcome = match patch {
        Patch::Json(patch) => merge::json::patch(object, patch),
        Patch::Merge(patch) => {
            if !patch.is_object() {
                return Err(Status::bad_request("a merge patch is an object"));
            }
            merge::json::merge_patch(object, patch);
            Ok(())
        }
        Patch::Strategic(patch) => merge::strategic::patch(object, patch, served.schema()),
        Patch::Apply(_) => Ok(()),
    };
    outcome.map_err(|error| match error {
        merge::Error::Malformed { .. } => {
            Status::bad_request(format!("error decoding patch: {}", telemetry::chain(&error)))
        }
        merge::Error::NotApplicable { .. } => Status::new(
            422,
            "Invalid",
            format!(
                "the server rejected our request due to an error in our request: {}",
                telemetry::chain(&error)
            ),
        ),
        merge::Error::TooLarge { .. } => Status::new(413, "RequestEntityTooLarge", error.to_string()),
    })?;
    served.check_type(object)
}

/// Whether conflicts are only those of a person who moves from kubectl's client-side apply to its server-side
/// apply: what the former set last, by its annotation, is the latter's to change.
fn moves_over(live: &Object, conflicts: &[Conflict], options: &ApplyOptions<'_>) -> bool {
    if options.manager != "kubectl" {
        return false;
    }
    let last = object::annotation(live, "kubectl.kubernetes.io/last-applied-configuration");
    let Some(last) = last.and_then(|text| serde_json::from_str::<Value>(text).ok()) else {
        return false;
    };
    let set: BTreeSet<String> = managed::of(&last, options.schema)
        .leaves()
        .iter()
        .map(|path| managed::path_text(path))
        .collect();
    conflicts
        .iter()
        .all(|conflict| conflict.manager == "kubectl-client-side-apply" && set.contains(&conflict.field_path))
}

fn apply_failed(served: &Served<'_>, name: &str, error: ApplyError) -> Status {
    let conflicts = match error {
        ApplyError::Conflicts(conflicts) => conflicts,
        ApplyError::Invalid { path, message } => {
            let path = path.trim_start_matches('.');
            let wrong = kinds::registry::FieldError::new(path, "FieldValueInvalid", message);
            return Status::invalid(served.kind, name, &[wrong]);
        }
    };
    let count = conflicts.len();
    let noun = if count == 1 { "conflict" } else { "conflicts" };
    let mut message = format!("Apply failed with {count} {noun}: ");
    match conflicts.as_slice() {
        [one] => message.push_str(&one.to_string()),
        many => {
            let mut who = String::new();
            for conflict in many {
                let with = with(conflict).replacen("conflict", "conflicts", 1);
                if with != who {
                    if !who.is_empty() {
                        message.push('\n');
                    }
                    message.push_str(&with);
                    message.push(':');
                    who = with;
                }
                message.push_str("\n- ");
                message.push_str(&conflict.field_path);
            }
        }
    }
    let mut status = Status::new(409, "Conflict", message);
    status.details = serde_json::json!({});
    status.with_causes(conflicts.iter().map(|conflict| {
        (
            "FieldManagerConflict".into(),
            with(conflict),
            conflict.field_path.clone(),
        )
    }))
}

/// `conflict with "kubectl" using v1`.
fn with(conflict: &Conflict) -> String {
    let text = conflict.to_string();
    text.strip_suffix(&format!(": {}", conflict.field_path))
        .unwrap_or(&text)
        .to_owned()
}
