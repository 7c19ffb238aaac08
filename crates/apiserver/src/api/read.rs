//! Get, list, continue tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use kinds::object::{Gvr, Object};
use serde::{Deserialize, Serialize};
use store::{Entry, Error, ListQuery};

use super::{Api, Caller, Selector, Target, kind::Served};
use crate::Status;

/// Entries that are read at a time when a selector may drop some.
const PIECE: usize = 500;

/// What to list; every field as in a request's query.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// `labelSelector`.
    pub label_selector: String,
    /// `fieldSelector`.
    pub field_selector: String,
    /// `limit`; 0 is none.
    pub limit: usize,
    /// `continue`.
    pub continue_token: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub resource_version_match: String,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The objects.
    pub items: Vec<T>,
    /// The revision that the list shows.
    pub revision: u64,
    /// For the next page.
    pub continue_token: Option<String>,
    /// How many there are after this page, if known.
    pub remaining: Option<u64>,
}

/// What is in a continue token. It means nothing to clients.
#[derive(Serialize, Deserialize)]
struct Token {
    /// The revision of the first page; 0 goes on at the newest.
    #[serde(rename = "rv")]
    revision: u64,
    #[serde(rename = "ns")]
    namespace: String,
    #[serde(rename = "n")]
    name: String,
}

impl Token {
    fn write(&self) -> Option<String> {
        serde_json::to_vec(self)
            .ok()
            .map(|json| URL_SAFE_NO_PAD.encode(json))
    }

    fn read(text: &str) -> Result<Self, Status> {
        let json = URL_SAFE_NO_PAD.decode(text).ok();
        json.and_then(|json| serde_json::from_slice(&json).ok())
            .ok_or_else(|| {
                Status::bad_request("continue key is not valid: it is not one that this server gave")
            })
    }
}

/// Reads a `resourceVersion` of a query: none if empty.
pub(super) fn parse_revision(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

impl Api {
    /// An object, in the version of `target.gvr`.
    ///
    /// # Errors
    /// 404, 403, or the store's.
    pub async fn get(&self, caller: &Caller, target: Target<'_>) -> Result<Object, Status> {
        let served = self.served(target.gvr)?;
        let bytes = self.entry(caller, &served, target).await?.value;
        served.load(&bytes)
    }

    /// The same as JSON bytes, without reading them where they are stored in that version.
    ///
    /// # Errors
    /// As [`Api::get`].
    pub async fn get_raw(&self, caller: &Caller, target: Target<'_>) -> Result<Bytes, Status> {
        let served = self.served(target.gvr)?;
        let bytes = self.entry(caller, &served, target).await?.value;
        served.spoken(bytes)
    }

    async fn entry(&self, caller: &Caller, served: &Served<'_>, target: Target<'_>) -> Result<Entry, Status> {
        self.authorize(caller, "get", target.gvr, target.namespace, target.name)?;
        served.check_subresource(target.subresource)?;
        let key = served.key(target.namespace, target.name)?;
        let entry = self.store.get(&key).await.map_err(|e| served.fail(&e))?;
        entry.ok_or_else(|| Status::not_found(served.kind, target.name))
    }

    /// Objects of a resource in one namespace or in all.
    ///
    /// # Errors
    /// 400 for options that make no sense, 403, 410 with a new continue token, 504 for a revision that has not
    /// happened yet.
    pub async fn list(
        &self,
        caller: &Caller,
        gvr: &Gvr,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page<Object>, Status> {
        let served = self.served(gvr)?;
        let page = self.stored_page(caller, &served, gvr, namespace, options).await?;
        page.map(|bytes| served.load(&bytes))
    }

    /// The same as JSON bytes, an object each; not even read where they are stored in that version and no
    /// selector needs it.
    ///
    /// # Errors
    /// As [`Api::list`].
    pub async fn list_raw(
        &self,
        caller: &Caller,
        gvr: &Gvr,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page<Bytes>, Status> {
        let served = self.served(gvr)?;
        let page = self.stored_page(caller, &served, gvr, namespace, options).await?;
        page.map(|bytes| served.spoken(bytes))
    }

    /// A page of stored bytes.
    async fn stored_page(
        &self,
        caller: &Caller,
        served: &Served<'_>,
        gvr: &Gvr,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Page<Bytes>, Status> {
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        self.authorize(caller, "list", gvr, namespace.unwrap_or_default(), "")?;
        let selector = Selector::parse(&options.label_selector, &options.field_selector, served.kind)?;
        let mut place = Place::read(options)?;
        let namespace = namespace.or_else(|| selector.only_namespace());
        if let Some(name) = selector.only_name()
            && place.at.is_none()
            && place.after.is_none()
            && let Ok(key) = served.key(namespace.unwrap_or_default(), name)
        {
            self.not_before(place.not_before, served)?;
            return self.page_of_one(served, &selector, key).await;
        }
        let mut items = Vec::new();
        loop {
            let wanted = match (options.limit, selector.is_empty()) {
                (limit, true) => limit,
                (_, false) => PIECE,
            };
            let query = ListQuery {
                resource: served.resource.clone(),
                namespace: namespace.map(Into::into),
                limit: wanted,
                after: place.after.clone(),
                at: place.at,
            };
            let page = match self.store.list(query).await {
                Ok(page) => page,
                Err(error) => return Err(place.failed(&error, served)),
            };
            if place.at.is_none() {
                if page.revision < place.not_before {
                    return Err(Status::too_large_revision(place.not_before, page.revision));
                }
                place.at = Some(page.revision);
            }
            let more = page.more;
            let mut entries = page.entries.into_iter();
            for entry in entries.by_ref() {
                let (entry_namespace, name) = (entry.key.namespace, entry.key.name);
                if selector.wants_key(&entry_namespace, &name)
                    && selector.wants_bytes(&entry.value, || served.load(&entry.value))?
                {
                    items.push(entry.value);
                }
                place.after = Some((entry_namespace, name));
                if options.limit > 0 && items.len() >= options.limit {
                    break;
                }
            }
            let full = options.limit > 0 && items.len() >= options.limit;
            let left = more || entries.next().is_some();
            if full || !left {
                return Ok(Page {
                    items,
                    revision: page.revision,
                    continue_token: if left { place.token(page.revision) } else { None },
                    remaining: page.remaining.filter(|_| left && selector.is_empty()),
                });
            }
        }
    }

    /// A list of at most one object, by its name.
    async fn page_of_one(
        &self,
        served: &Served<'_>,
        selector: &Selector,
        key: store::Key,
    ) -> Result<Page<Bytes>, Status> {
        // Before reading: changes after this revision may show in the list and again in a watch from it.
        let before = self.store.revision();
        let entry = self.store.get(&key).await.map_err(|e| served.fail(&e))?;
        let revision = entry.as_ref().map_or(before, |entry| entry.revision.max(before));
        let mut items = Vec::new();
        if let Some(entry) = entry
            && selector.wants_key(&key.namespace, &key.name)
            && selector.wants_bytes(&entry.value, || served.load(&entry.value))?
        {
            items.push(entry.value);
        }
        Ok(Page {
            items,
            revision,
            continue_token: None,
            remaining: None,
        })
    }

    fn not_before(&self, revision: u64, served: &Served<'_>) -> Result<(), Status> {
        let newest = self.store.revision();
        if revision > newest {
            return Err(served.fail(&Error::Future {
                asked: revision,
                newest,
            }));
        }
        Ok(())
    }
}

/// Where a list starts and what it shows.
struct Place {
    after: Option<(String, String)>,
    /// The state to show; the newest if none.
    at: Option<u64>,
    /// The state must be this new.
    not_before: u64,
    /// Whether `after` comes from a token.
    continued: bool,
}

impl Place {
    fn read(options: &ListOptions) -> Result<Self, Status> {
        let revision = parse_revision(&options.resource_version)?;
        let how = options.resource_version_match.as_str();
        let forbidden = |why: &str| {
            Err(Status::new(
                422,
                "Invalid",
                format!("ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: {why}"),
            )
            .with_causes([(
                "FieldValueForbidden".into(),
                format!("Forbidden: {why}"),
                "resourceVersionMatch".into(),
            )]))
        };
        if !options.continue_token.is_empty() {
            if !how.is_empty() {
                return forbidden("resourceVersionMatch is forbidden when continue is provided");
            }
            if revision.is_some_and(|revision| revision > 0) {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let token = Token::read(&options.continue_token)?;
            let at = (token.revision > 0).then_some(token.revision);
            return Ok(Self {
                after: Some((token.namespace, token.name)),
                at,
                not_before: 0,
                continued: true,
            });
        }
        if !how.is_empty() && revision.is_none() {
            return forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        let exact = match how {
            "Exact" if revision == Some(0) => {
                return forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"");
            }
            "Exact" => true,
            "NotOlderThan" => false,
            // A page of an old list, as clients asked before they could say how.
            "" => options.limit > 0 && revision.is_some_and(|revision| revision > 0),
            _ => {
                return Err(Status::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: {how:?}: supported values: \"Exact\", \"NotOlderThan\""
                )));
            }
        };
        let at = revision.filter(|_| exact);
        Ok(Self {
            after: None,
            at,
            not_before: revision.unwrap_or(0),
            continued: false,
        })
    }

    fn token(&self, revision: u64) -> Option<String> {
        let (namespace, name) = self.after.clone()?;
        Token {
            revision,
            namespace,
            name,
        }
        .write()
    }

    /// A continued list whose revision is gone may go on at the newest.
    fn failed(&self, error: &Error, served: &Served<'_>) -> Status {
        let mut status = served.fail(error);
        if self.continued && status.is_expired() {
            status.message = "The provided continue parameter is too old to display a consistent list result. You can \
                 start a new list without the continue parameter, or use the continue token in this response to \
                 retrieve the remainder of the results. Continuing with the provided token results in an inconsistent \
                 list - objects that were created, modified, or deleted between the time the first chunk was returned \
                 and now may show up in the list."
                .into();
            status.continue_token = self.token(0);
        } else if status.is_expired() {
            status.message = "The resourceVersion for the provided list is too old.".into();
        }
        status
    }
}

impl<T> Page<T> {
    fn map<U>(self, change: impl FnMut(T) -> Result<U, Status>) -> Result<Page<U>, Status> {
        let items = self.items.into_iter().map(change).collect::<Result<_, _>>()?;
        Ok(Page {
            items,
            revision: self.revision,
            continue_token: self.continue_token,
            remaining: self.remaining,
        })
    }
}

impl Served<'_> {
    /// Stored bytes in the version spoken.
    pub(super) fn spoken(&self, bytes: Bytes) -> Result<Bytes, Status> {
        if !self.converted {
            return Ok(bytes);
        }
        let object = self.load(&bytes)?;
        Ok(super::bytes::encode(&object)(kinds::object::revision(&object)))
    }

    pub(super) fn check_subresource(&self, subresource: Option<&str>) -> Result<(), Status> {
        match subresource {
            None => Ok(()),
            Some("status") if self.kind.has_status => Ok(()),
            Some(_) => Err(Status::no_such_resource()),
        }
    }
}
