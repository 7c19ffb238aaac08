//! The verbs over a store.
//!
//! ```text
//! write: authorize ─ read the stored object ─ change it (body, patch, apply) ─ what only the server sets
//!          ─ defaults, the kind's own admission ─ validation ─ generation, managedFields
//!          ─ nothing changed? answer ─ admission list ─ dry run? answer ─ store (a conflict: once more)
//! ```
//!
//! | module | what it is |
//! |---|---|
//! | `kind` | which kind a request is about, its stored form, whether the caller may |
//! | `bytes` | objects to and from stored bytes |
//! | `read` | get, list, continue tokens |
//! | `watch` | watches with selectors, initial events, bookmarks |
//! | `write` | create, update, status |
//! | `fields` | which fields a write may set, and which of them it changed |
//! | `patch` | JSON, merge, strategic and apply patches |
//! | `delete` | delete, finalizers, deletecollection |
//! | `namespaces` | which namespaces take new objects; emptying those that are deleted |
//! | `selector` | label and field selectors |
//! | [`roles`] | what the members of each group may |

mod bytes;
mod delete;
mod fields;
mod kind;
mod namespaces;
mod patch;
mod read;
pub mod roles;
mod selector;
mod watch;
mod write;

use std::{collections::HashMap, sync::Arc};

use kinds::{
    object::{Gvr, Object},
    registry::Registry,
};
use store::Store;
use telemetry::Clock;

pub(crate) use self::{bytes::decode, kind::Served};
pub use self::{
    delete::{DeleteOptions, Deleted},
    patch::Patch,
    read::{ListOptions, Page},
    selector::Selector,
    watch::{ObjectWatch, WatchItem, WatchKind, WatchOptions},
};
use crate::admission::{Admission, Audit, NoAudit};

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// For who comes through the orchestrator: the address they came from there. For the audit log only.
    pub from: String,
}

/// The group of the daemon's own reconcilers.
pub const SYSTEM: &str = "system:selvedge";
/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// The group whose members may write what Git owns; each such write is recorded.
pub const BREAK_GLASS: &str = "selvedge:break-glass";

impl Caller {
    /// Whether the caller is in a group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// A part of the daemon.
    #[must_use]
    pub fn system(name: &str) -> Self {
        Self {
            user: format!("system:selvedge:{name}"),
            groups: vec![SYSTEM.into(), MASTERS.into()],
            from: String::new(),
        }
    }
}

/// One object, or one subresource of it. `namespace` is empty for kinds of cluster scope.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The resource, in the version that the request speaks.
    pub gvr: &'a Gvr,
    /// Namespace.
    pub namespace: &'a str,
    /// Name; empty for a create.
    pub name: &'a str,
    /// `status`, or none.
    pub subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// An object.
    #[must_use]
    pub fn new(gvr: &'a Gvr, namespace: &'a str, name: &'a str) -> Self {
        Self {
            gvr,
            namespace,
            name,
            subresource: None,
        }
    }

    /// Its `status` subresource.
    #[must_use]
    pub fn status(self) -> Self {
        Self {
            subresource: Some("status"),
            ..self
        }
    }
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// The field manager (`fieldManager`). Must be given for an apply.
    pub manager: String,
    /// Go through everything, store nothing (`dryRun=All`).
    pub dry_run: bool,
    /// For an apply: take fields from other managers.
    pub force: bool,
    /// No warnings about unknown fields (`fieldValidation=Ignore`). They are kept in any case.
    pub ignore_unknown: bool,
}

/// What a write did.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object as it is now, in the version asked for.
    pub object: Object,
    /// Whether it is new (the answer is 201, not 200).
    pub created: bool,
    /// Whether anything was written (or would have been, in a dry run).
    pub changed: bool,
    /// For `Warning:` headers.
    pub warnings: Vec<String>,
}

/// The verbs over a store. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) admission: Arc<[Arc<dyn Admission>]>,
    pub(crate) audit: Arc<dyn Audit>,
    shared: Arc<Shared>,
}

struct Shared {
    /// The store's name of each stored kind's resource, by group and plural.
    resources: HashMap<(String, String), Arc<str>>,
    /// Held for reading from the look at a namespace to the write in it, for writing by the end of a namespace.
    namespaces: Arc<tokio::sync::RwLock<()>>,
    /// Wakes [`Api::run_namespaces`].
    terminating: tokio::sync::Notify,
}

impl Api {
    /// An API over a store.
    #[must_use]
    pub fn new(registry: Arc<Registry>, store: Arc<dyn Store>, clock: Clock) -> Self {
        let resources = registry
            .iter()
            .map(|kind| {
                let resource = format!("{}/{}", kind.group, kind.plural).into();
                ((kind.group.clone(), kind.plural.clone()), resource)
            })
            .collect();
        let shared = Shared {
            resources,
            namespaces: Arc::default(),
            terminating: tokio::sync::Notify::new(),
        };
        let admission = Arc::from([]);
        Self {
            registry,
            store,
            clock,
            admission,
            audit: Arc::new(NoAudit),
            shared: Arc::new(shared),
        }
    }

    /// The same with one more rule for writes, asked after those that are there.
    #[must_use]
    pub fn with_admission(mut self, admission: Arc<dyn Admission>) -> Self {
        self.admission = self.admission.iter().cloned().chain([admission]).collect();
        self
    }

    /// The same with a log of refused writes and of writes under break-glass.
    #[must_use]
    pub fn with_audit(mut self, audit: Arc<dyn Audit>) -> Self {
        self.audit = audit;
        self
    }

    /// The kinds that it serves.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The newest revision.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }
}
