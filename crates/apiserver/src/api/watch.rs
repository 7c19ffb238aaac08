//! Watches with selectors, initial events and bookmarks.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use kinds::{
    object::{Gvr, Object},
    registry::KindDef,
};
use serde_json::json;
use store::{Change, Error, ListQuery};

use super::{Api, Caller, Selector, bytes::restamp, kind::Served, read::parse_revision};
use crate::Status;

/// Objects that are read at a time for the initial events.
const PIECE: usize = 200;

/// What to watch; every field as in a request's query.
#[derive(Clone, Debug, Default)]
pub struct WatchOptions {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
    /// `allowWatchBookmarks`.
    pub bookmarks: bool,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchKind {
    /// The object is new, or newly in the selection.
    Added,
    /// It was changed.
    Modified,
    /// It is gone, or no longer in the selection.
    Deleted,
    /// Nothing: the object has only the revision that the watch has reached.
    Bookmark,
    /// The watch ends; the object is a `Status`.
    Error,
}

impl WatchKind {
    /// As in `type` of a watch event.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub struct WatchItem {
    /// What happened.
    pub kind: WatchKind,
    /// The object as JSON, in the version asked for.
    pub object: Bytes,
}

/// A running watch.
pub struct ObjectWatch {
    api: Api,
    gvr: Gvr,
    namespace: Option<String>,
    selector: Selector,
    bookmarks: bool,
    phase: Phase,
    waiting: VecDeque<WatchItem>,
}

enum Phase {
    /// What is there is given out, page by page.
    Initial {
        at: u64,
        after: Option<(String, String)>,
        changes: Box<store::Watch>,
        mark_end: bool,
    },
    Following(Box<store::Watch>),
    Ended,
}

impl Api {
    /// Watches a resource in one namespace or in all. A revision that is no longer kept is no error here: the
    /// watch then has one event of type `ERROR`, as clients expect.
    ///
    /// # Errors
    /// 400, 403, 422 for options that make no sense.
    pub async fn watch(
        &self,
        caller: &Caller,
        gvr: &Gvr,
        namespace: Option<&str>,
        options: &WatchOptions,
    ) -> Result<ObjectWatch, Status> {
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        self.authorize(caller, "watch", gvr, namespace.unwrap_or_default(), "")?;
        let served = self.served(gvr)?;
        let selector = Selector::parse(&options.label_selector, &options.field_selector, served.kind)?;
        let revision = parse_revision(&options.resource_version)?;
        let initial = initial_events(options, revision)?;
        let phase = match (initial, revision) {
            (Initial::None, Some(revision)) if revision > 0 => self
                .store
                .watch(served.resource, revision)
                .map(|changes| Phase::Following(Box::new(changes))),
            (Initial::None, _) => {
                let newest = self.store.revision();
                self.store
                    .watch(served.resource, newest)
                    .map(|changes| Phase::Following(Box::new(changes)))
            }
            (Initial::Legacy | Initial::Marked, _) => {
                let newest = self.store.revision();
                if let Some(asked) = revision.filter(|asked| *asked > newest) {
                    Err(Error::Future { asked, newest })
                } else {
                    self.store
                        .watch(served.resource, newest)
                        .map(|changes| Phase::Initial {
                            at: newest,
                            after: None,
                            changes: Box::new(changes),
                            mark_end: matches!(initial, Initial::Marked),
                        })
                }
            }
        };
        let mut watch = ObjectWatch {
            api: self.clone(),
            gvr: gvr.clone(),
            namespace: namespace.map(Into::into),
            selector,
            bookmarks: options.bookmarks,
            phase: Phase::Ended,
            waiting: VecDeque::new(),
        };
        match phase {
            Ok(phase) => watch.phase = phase,
            // A revision of another life of the database: the client must list again.
            Err(
                Error::Future { asked, newest }
                | Error::TooOld {
                    asked,
                    oldest: newest,
                },
            ) => {
                watch.fail(&Status::expired(asked, newest));
            }
            Err(error) => return Err(served.fail(&error)),
        }
        Ok(watch)
    }
}

#[derive(Clone, Copy)]
enum Initial {
    None,
    /// What is there as `ADDED`, without saying where it ends: what a watch from nowhere gets.
    Legacy,
    /// The same, ended by a bookmark.
    Marked,
}

fn initial_events(options: &WatchOptions, revision: Option<u64>) -> Result<Initial, Status> {
    let forbidden = |field: &str, why: &str| {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {why}");
        Err(Status::new(422, "Invalid", message).with_causes([(
            "FieldValueForbidden".into(),
            format!("Forbidden: {why}"),
            field.into(),
        )]))
    };
    match (
        options.send_initial_events,
        options.resource_version_match.as_str(),
    ) {
        (None, "") => Ok(if revision.unwrap_or(0) == 0 {
            Initial::Legacy
        } else {
            Initial::None
        }),
        (None, _) => forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (Some(_), "NotOlderThan") if !options.bookmarks && options.send_initial_events == Some(true) => {
            // Without bookmarks the end could not be told.
            Ok(Initial::Legacy)
        }
        (Some(true), "NotOlderThan") => Ok(Initial::Marked),
        (Some(false), "NotOlderThan") => Ok(Initial::None),
        (Some(_), _) => forbidden(
            "resourceVersionMatch",
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
    }
}

impl ObjectWatch {
    /// The next event; `None` at the end. May be dropped before it is ready (in a `select!`) without loss.
    pub async fn next(&mut self) -> Option<WatchItem> {
        loop {
            if let Some(item) = self.waiting.pop_front() {
                return Some(item);
            }
            let outcome = match &mut self.phase {
                Phase::Ended => return None,
                Phase::Initial { .. } => self.next_page().await,
                Phase::Following(changes) => match changes.next().await {
                    Some(change) => self.take(&change),
                    None => Err(Status::new(
                        410,
                        "Expired",
                        "too old resource version: the watch fell behind; list again",
                    )),
                },
            };
            if let Err(status) = outcome {
                self.fail(&status);
            }
        }
    }

    /// A bookmark with the revision that the watch has reached. `None` while initial events are given out, when
    /// events wait, and when the client asked for no bookmarks. The caller decides when.
    pub fn bookmark(&mut self) -> Option<WatchItem> {
        let Phase::Following(changes) = &mut self.phase else {
            return None;
        };
        if !self.bookmarks || !self.waiting.is_empty() {
            return None;
        }
        let revision = changes.progress();
        let served = self.api.served(&self.gvr).ok()?;
        Some(mark(&served, revision, false))
    }

    fn fail(&mut self, status: &Status) {
        self.phase = Phase::Ended;
        let object = Bytes::from(status.to_value().to_string());
        self.waiting.push_back(WatchItem {
            kind: WatchKind::Error,
            object,
        });
    }

    /// The next page of what was there at the beginning.
    async fn next_page(&mut self) -> Result<(), Status> {
        let Phase::Initial {
            at, after, mark_end, ..
        } = &self.phase
        else {
            return Ok(());
        };
        let (at, mark_end, api) = (*at, *mark_end, self.api.clone());
        let served = api.served(&self.gvr)?;
        let namespace = self
            .namespace
            .as_deref()
            .or_else(|| self.selector.only_namespace());
        let query = ListQuery {
            resource: served.resource.clone(),
            namespace: namespace.map(Into::into),
            limit: PIECE,
            after: after.clone(),
            at: Some(at),
        };
        let page = api.store.list(query).await.map_err(|error| served.fail(&error))?;
        let last = page
            .entries
            .last()
            .map(|entry| (entry.key.namespace.clone(), entry.key.name.clone()));
        for entry in page.entries {
            let key = &entry.key;
            if self.selector.wants_key(&key.namespace, &key.name)
                && self
                    .selector
                    .wants_bytes(&entry.value, || served.load(&entry.value))?
            {
                let object = served.spoken(entry.value)?;
                self.waiting.push_back(WatchItem {
                    kind: WatchKind::Added,
                    object,
                });
            }
        }
        if page.more {
            if let Phase::Initial { after, .. } = &mut self.phase {
                *after = last;
            }
        } else if let Phase::Initial { changes, .. } = std::mem::replace(&mut self.phase, Phase::Ended) {
            self.phase = Phase::Following(changes);
            if mark_end {
                self.waiting.push_back(mark(&served, at, true));
            }
        }
        Ok(())
    }

    /// What a change is to this watch.
    fn take(&mut self, change: &Arc<Change>) -> Result<(), Status> {
        let key = &change.key;
        let elsewhere = self
            .namespace
            .as_ref()
            .is_some_and(|namespace| *namespace != key.namespace);
        if elsewhere || !self.selector.wants_key(&key.namespace, &key.name) {
            return Ok(());
        }
        let api = self.api.clone();
        let served = api.served(&self.gvr)?;
        let wanted = |value: &Bytes| self.selector.wants_bytes(value, || served.load(value));
        let was = change.previous.as_ref().map(wanted).transpose()?.unwrap_or(false);
        let is = !change.deleted && wanted(&change.value)?;
        let (kind, value) = match (was, is) {
            (false, true) => (WatchKind::Added, change.value.clone()),
            (true, true) => (WatchKind::Modified, change.value.clone()),
            (true, false) if change.deleted => (WatchKind::Deleted, change.value.clone()),
            // It left the selection: what it was when it was in, with the revision of now.
            (true, false) => {
                let previous = change.previous.clone().unwrap_or_default();
                (WatchKind::Deleted, restamp(&previous, change.revision)?)
            }
            (false, false) => return Ok(()),
        };
        self.waiting.push_back(WatchItem {
            kind,
            object: served.spoken(value)?,
        });
        Ok(())
    }
}

fn mark(served: &Served<'_>, revision: u64, end_of_initial: bool) -> WatchItem {
    WatchItem {
        kind: WatchKind::Bookmark,
        object: Bytes::from(
            bookmark(served.kind, &served.api_version(), revision, end_of_initial).to_string(),
        ),
    }
}

fn bookmark(kind: &KindDef, api_version: &str, revision: u64, end_of_initial: bool) -> Object {
    let mut object = json!({
        "kind": kind.kind, "apiVersion": api_version,
        "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
    });
    if end_of_initial {
        object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    object
}
