//! Which kind a request is about, its stored form, and whether the caller may.

use std::sync::Arc;

use kinds::{
    object::{Gvr, Object},
    registry::{KindDef, Scope},
};
use store::Key;

use super::{Api, Caller, Target, roles};
use crate::Status;

/// A kind in the version that a request speaks.
#[derive(Clone, Copy)]
pub(crate) struct Served<'a> {
    pub(crate) kind: &'a KindDef,
    pub(crate) version: &'a str,
    /// The store's name of the resource.
    pub(crate) resource: &'a Arc<str>,
    /// Whether objects are stored in another form than the one spoken.
    pub(crate) converted: bool,
}

impl Api {
    /// The kind of a resource.
    pub(crate) fn served<'a>(&'a self, gvr: &'a Gvr) -> Result<Served<'a>, Status> {
        let kind = self
            .registry
            .by_resource(gvr)
            .ok_or_else(Status::no_such_resource)?;
        let stored = self.registry.stored(kind);
        let resource = self
            .shared
            .resources
            .get(&(stored.group.clone(), stored.plural.clone()))
            .ok_or_else(Status::no_such_resource)?;
        let converted = kind.stored_as.is_some() || gvr.version != kind.storage_version;
        Ok(Served {
            kind,
            version: &gvr.version,
            resource,
            converted,
        })
    }

    /// Refuses callers who may not, by their groups: see [`roles`].
    ///
    /// # Errors
    /// 403.
    pub fn authorize(
        &self,
        caller: &Caller,
        verb: &str,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
    ) -> Result<(), Status> {
        self.authorize_target(
            caller,
            verb,
            Target {
                gvr,
                namespace,
                name,
                subresource: None,
            },
        )
    }

    /// The same, for an object or its subresource.
    ///
    /// # Errors
    /// 403.
    pub fn authorize_target(&self, caller: &Caller, verb: &str, target: Target<'_>) -> Result<(), Status> {
        let Target {
            gvr,
            namespace,
            name,
            subresource,
        } = target;
        let asked = roles::Attributes {
            verb,
            gvr,
            namespace,
            name,
            subresource,
        };
        let Err(why) = roles::judge(caller, &asked) else {
            return Ok(());
        };
        let kind = self
            .registry
            .by_resource(gvr)
            .ok_or_else(Status::no_such_resource)?;
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let because = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        let resource = match subresource {
            Some(subresource) => format!("{}/{subresource}", gvr.plural),
            None => gvr.plural.clone(),
        };
        let why = format!(
            "User {:?} cannot {verb} resource {resource:?} in API group {:?} {place}{because}",
            caller.user, gvr.group
        );
        Err(Status::forbidden(kind, name, &why))
    }
}

impl Served<'_> {
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Result<Key, Status> {
        match (self.kind.scope, namespace.is_empty()) {
            (Scope::Namespaced, true) => Err(Status::bad_request(
                "an empty namespace may not be set when a resource name is provided",
            )),
            (Scope::Cluster, false) => Err(Status::no_such_resource()),
            _ => Ok(Key {
                resource: self.resource.clone(),
                namespace: namespace.into(),
                name: name.into(),
            }),
        }
    }

    /// From the form that is stored.
    pub(crate) fn load(&self, bytes: &[u8]) -> Result<Object, Status> {
        let mut object = super::decode(bytes)?;
        if self.converted {
            self.kind.from_stored(&mut object, self.version);
        }
        Ok(object)
    }

    /// Into the form that is stored.
    pub(crate) fn store(&self, object: &Object) -> Result<store::Make, Status> {
        if self.converted {
            let mut object = object.clone();
            self.kind.to_stored(&mut object);
            super::bytes::encode_bounded(&object)
        } else {
            super::bytes::encode_bounded(object)
        }
    }

    pub(crate) fn fail(&self, error: &store::Error) -> Status {
        Status::of_store(error, self.kind)
    }

    /// The kind's API version as spoken.
    pub(crate) fn api_version(&self) -> String {
        if self.kind.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.kind.group, self.version)
        }
    }

    /// The schema of the version spoken.
    pub(crate) fn schema(&self) -> &serde_json::Value {
        self.kind
            .version(self.version)
            .map_or(&serde_json::Value::Null, |version| &version.schema)
    }
}
