//! Requests for objects: which verb they are, what they may say, and their answers.

use std::{sync::Arc, time::Duration};

use hyper::{
    Method,
    body::Incoming,
    header::{ACCEPT, CONTENT_TYPE, USER_AGENT},
};
use kinds::{
    Object,
    registry::{KindDef, Scope},
};
use serde_json::{Value, json};

use crate::{
    Caller, Status,
    api::{DeleteOptions, ListOptions, Patch, Target, WatchOptions, WriteOptions, Written},
    discovery::REVIEWS,
};

use super::{
    State,
    body::{self, Body},
    decode, list, negotiate,
    path::{self, Resource},
    render::{Form, ListMeta},
    respond::{self, Answer, JSON, method_not_allowed, not_found},
    reviews,
    service::Parsed,
    watch,
};

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";

/// A watch without a time of its own lasts at least so long, and at most twice.
const WATCH_AT_LEAST: u64 = 1_800;

/// Whether a path asks a question that every known caller may ask.
pub(super) fn is_review(target: &path::Target) -> bool {
    matches!(target, path::Target::Resource(r) if r.gvr.version == "v1" && r.name.is_empty() && r.namespace.is_empty()
        && REVIEWS.iter().any(|(group, plural, ..)| r.gvr.group == *group && r.gvr.plural == *plural))
}

/// Answers a request for objects.
pub(super) async fn answer(
    state: &Arc<State>,
    caller: &Caller,
    resource: &Resource,
    request: Parsed,
    body: Incoming,
) -> Result<Answer, Status> {
    if is_review(&path::Target::Resource(resource.clone())) {
        if request.method != Method::POST {
            return Err(method_not_allowed());
        }
        let format = negotiate::format(request.header(&CONTENT_TYPE))?;
        let object = decode::object(&body::read(body).await?, format)?.object;
        return Ok(respond::json(
            201,
            &reviews::answer(&resource.gvr.plural, caller, object),
        ));
    }
    let kind = state
        .api
        .registry()
        .by_resource(&resource.gvr)
        .ok_or_else(Status::no_such_resource)?;
    check_path(kind, resource)?;
    let form = Form {
        output: negotiate::output(request.header(&ACCEPT), &request.query)?,
        columns: state
            .columns(kind, &resource.gvr.version)
            .ok_or_else(Status::no_such_resource)?,
        api_version: resource.gvr.api_version(),
        kind: kind.kind.clone(),
    };
    let objects = Objects {
        state,
        caller,
        kind,
        resource,
        form,
    };
    let collection = resource.name.is_empty();
    match request.method.as_str() {
        "GET" | "HEAD" if collection || request.query.flag("watch")? == Some(true) => {
            objects.read_many(&request).await
        }
        "GET" | "HEAD" => {
            let raw = state.api.get_raw(caller, objects.target()).await?;
            Ok(respond::answer(200, JSON, objects.render(&raw)?))
        }
        "POST" if collection => {
            let (object, options, warnings) = objects.given(&request, body).await?;
            let written = state
                .api
                .create(caller, objects.target(), object, &options)
                .await?;
            objects.written(written, warnings)
        }
        "PUT" if !collection => {
            let (object, options, warnings) = objects.given(&request, body).await?;
            let written = state
                .api
                .update(caller, objects.target(), object, &options)
                .await?;
            objects.written(written, warnings)
        }
        "PATCH" if !collection => objects.patch(&request, body).await,
        "DELETE" if resource.subresource.is_empty() => objects.delete(&request, body).await,
        _ => Err(Status::method_not_allowed(
            kind,
            &request.method.as_str().to_ascii_lowercase(),
        )),
    }
}

/// A path must fit the kind's scope, and name a subresource that exists.
fn check_path(kind: &KindDef, resource: &Resource) -> Result<(), Status> {
    let namespaced = kind.scope == Scope::Namespaced;
    let fits = match (
        namespaced,
        resource.namespace.is_empty(),
        resource.name.is_empty(),
    ) {
        (true, true, named_nothing) => named_nothing,
        (false, in_no_namespace, _) => in_no_namespace,
        (true, false, _) => true,
    };
    let known = resource.subresource.is_empty() || (resource.subresource == "status" && kind.has_status);
    if fits && known { Ok(()) } else { Err(not_found()) }
}

fn damaged(error: serde_json::Error) -> Status {
    tracing::error!(%error, "a stored object can't be read");
    Status::new(
        500,
        "InternalError",
        "a stored object can't be read: the store is damaged",
    )
}

/// One request for objects of a kind.
struct Objects<'a> {
    state: &'a Arc<State>,
    caller: &'a Caller,
    kind: &'a KindDef,
    resource: &'a Resource,
    form: Form,
}

impl<'a> Objects<'a> {
    fn target(&self) -> Target<'a> {
        let Resource {
            gvr,
            namespace,
            name,
            subresource,
        } = self.resource;
        let subresource = (!subresource.is_empty()).then_some(subresource.as_str());
        Target {
            gvr,
            namespace,
            name,
            subresource,
        }
    }

    fn namespace(&self) -> Option<&'a str> {
        Some(self.resource.namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    fn render(&self, raw: &[u8]) -> Result<Vec<u8>, Status> {
        self.form
            .object(raw, self.state.api.clock().now())
            .map_err(damaged)
    }

    async fn read_many(self, request: &Parsed) -> Result<Answer, Status> {
        let query = &request.query;
        let Self {
            state,
            caller,
            resource,
            ..
        } = self;
        if !resource.subresource.is_empty() {
            return Err(Status::method_not_allowed(self.kind, "watch"));
        }
        let mut fields = query.text("fieldSelector").to_owned();
        if !resource.name.is_empty() {
            // A watch of one object by its path.
            let comma = if fields.is_empty() { "" } else { "," };
            fields += &format!("{comma}metadata.name={}", resource.name);
        }
        let initial = query.flag("sendInitialEvents")?;
        if query.flag("watch")? == Some(true) {
            if query.has("continue") && !query.text("continue").is_empty() {
                return Err(invalid_options(
                    "ListOptions",
                    "continue",
                    "Forbidden: continue is forbidden for watch",
                ));
            }
            let options = WatchOptions {
                label_selector: query.text("labelSelector").into(),
                field_selector: fields,
                resource_version: query.text("resourceVersion").into(),
                resource_version_match: query.text("resourceVersionMatch").into(),
                send_initial_events: initial,
                bookmarks: query.flag("allowWatchBookmarks")?.unwrap_or(false),
            };
            let seconds = match query.number("timeoutSeconds")? {
                Some(seconds) if seconds > 0 => seconds.min(24 * 3600),
                // Not all at once, when many began together.
                _ => WATCH_AT_LEAST + u64::from(uuid::Uuid::new_v4().as_bytes()[0]) * WATCH_AT_LEAST / 256,
            };
            let watch = state
                .api
                .watch(caller, &resource.gvr, self.namespace(), &options)
                .await?;
            return Ok(streamed(watch::body(
                state.clone(),
                self.form,
                watch,
                Duration::from_secs(seconds),
            )));
        }
        if initial.is_some() {
            let why = "Forbidden: sendInitialEvents is forbidden for list";
            return Err(invalid_options("ListOptions", "sendInitialEvents", why));
        }
        let options = list_options(request, fields)?;
        let page = state
            .api
            .list_raw(caller, &resource.gvr, self.namespace(), &options)
            .await?;
        let meta = ListMeta {
            revision: page.revision,
            next: page.continue_token,
            remaining: page.remaining,
        };
        Ok(streamed(list::body(
            self.form,
            &meta,
            page.items,
            state.api.clock().now(),
        )))
    }

    /// The object in a body, how to write it, and what to warn about. Fields that occur twice are errors or
    /// warnings, as the client wants.
    async fn given(
        &self,
        request: &Parsed,
        body: Incoming,
    ) -> Result<(Object, WriteOptions, Vec<String>), Status> {
        let options = write_options(request)?;
        let format = negotiate::format(request.header(&CONTENT_TYPE))?;
        let decoded = decode::object(&body::read(body).await?, format)?;
        if decoded.object.is_null() {
            return Err(Status::bad_request(
                "the body of the request is empty: an object is needed",
            ));
        }
        let twice: Vec<String> = decoded
            .duplicates
            .iter()
            .map(|field| format!("duplicate field {field:?}"))
            .collect();
        match request.query.text("fieldValidation") {
            "Strict" if !twice.is_empty() => Err(Status::bad_request(format!(
                "strict decoding error: {}",
                twice.join(", ")
            ))),
            "Ignore" => Ok((decoded.object, options, Vec::new())),
            _ => Ok((decoded.object, options, twice)),
        }
    }

    async fn patch(&self, request: &Parsed, body: Incoming) -> Result<Answer, Status> {
        let media_type = negotiate::media_type(request.header(&CONTENT_TYPE));
        let is_apply = media_type == "application/apply-patch+yaml";
        let force = request.query.flag("force")?;
        if is_apply && request.query.get("fieldManager").is_none() {
            return Err(invalid_options(
                "PatchOptions",
                "fieldManager",
                "Required value: is required for apply patch",
            ));
        }
        if !is_apply && force.is_some() {
            let why = "Forbidden: may not be specified for non-apply patch";
            return Err(invalid_options("PatchOptions", "force", why));
        }
        let options = WriteOptions {
            force: force.unwrap_or(false),
            ..write_options(request)?
        };
        let make: fn(Value) -> Patch = match media_type.as_str() {
            "application/json-patch+json" => Patch::Json,
            "application/merge-patch+json" => Patch::Merge,
            "application/strategic-merge-patch+json" => Patch::Strategic,
            "application/apply-patch+yaml" => Patch::Apply,
            other => return Err(negotiate::unsupported(other, PATCH_TYPES)),
        };
        let body = body::read(body).await?;
        let value = if is_apply {
            decode::yaml(&body)?
        } else {
            decode::json(&body)?.object
        };
        let written = self
            .state
            .api
            .patch(self.caller, self.target(), make(value), &options)
            .await?;
        self.written(written, Vec::new())
    }

    /// The answer to a write.
    fn written(&self, written: Written, mut warnings: Vec<String>) -> Result<Answer, Status> {
        let body = self.render(written.object.to_string().as_bytes())?;
        let mut response = respond::answer(if written.created { 201 } else { 200 }, JSON, body);
        warnings.extend(written.warnings);
        respond::warnings(&mut response, &warnings);
        Ok(response)
    }

    async fn delete(&self, request: &Parsed, body: Incoming) -> Result<Answer, Status> {
        let body = body::read(body).await?;
        // Some clients name a type for no body at all.
        let mut given = match body.is_empty() {
            true => json!({}),
            false => decode::object(&body, negotiate::format(request.header(&CONTENT_TYPE))?)?.object,
        };
        let mut dry = request.query.all("dryRun");
        dry.extend(
            given["dryRun"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned),
        );
        if let Some(policy) = request.query.get("propagationPolicy") {
            given["propagationPolicy"] = policy.into();
        }
        if let Some(seconds) = request.query.number("gracePeriodSeconds")? {
            given["gracePeriodSeconds"] = seconds.into();
        }
        let text = |pointer: &str| given.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let options = DeleteOptions {
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            propagation_policy: text("/propagationPolicy"),
            grace_period_seconds: given["gracePeriodSeconds"].as_i64(),
            dry_run: dry_run(&dry)?,
        };
        if self.resource.name.is_empty() {
            return self.delete_collection(request, &options).await;
        }
        let deleted = self
            .state
            .api
            .delete(self.caller, self.target(), &options)
            .await?;
        let mut response = match deleted.gone {
            true => respond::json(200, deleted.answer()),
            false => respond::answer(200, JSON, self.render(deleted.answer().to_string().as_bytes())?),
        };
        respond::warnings(&mut response, &deleted.warnings);
        Ok(response)
    }

    async fn delete_collection(&self, request: &Parsed, options: &DeleteOptions) -> Result<Answer, Status> {
        let list = list_options(request, request.query.text("fieldSelector").to_owned())?;
        let (api, gvr) = (&self.state.api, &self.resource.gvr);
        api.delete_collection(self.caller, gvr, self.namespace(), &list, options)
            .await?;
        let details = json!({"group": self.kind.group, "kind": self.kind.plural});
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
        Ok(respond::json(200, &status))
    }
}

fn list_options(request: &Parsed, fields: String) -> Result<ListOptions, Status> {
    let query = &request.query;
    Ok(ListOptions {
        label_selector: query.text("labelSelector").into(),
        field_selector: fields,
        limit: usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX),
        continue_token: query.text("continue").into(),
        resource_version: query.text("resourceVersion").into(),
        resource_version_match: query.text("resourceVersionMatch").into(),
    })
}

fn streamed(body: Body) -> Answer {
    let mut response = respond::answer(200, JSON, "");
    *response.body_mut() = body;
    response
}

/// What a write says about itself in its query.
fn write_options(request: &Parsed) -> Result<WriteOptions, Status> {
    let query = &request.query;
    let given = query.get("fieldManager").map(str::to_owned);
    if given
        .as_ref()
        .is_some_and(|manager| manager.len() > 128 || manager.chars().any(char::is_control))
    {
        let why = "Invalid value: at most 128 printable characters";
        return Err(invalid_options("PatchOptions", "fieldManager", why));
    }
    // As Kubernetes does: the program's name from its user agent.
    let agent = request
        .header(&USER_AGENT)
        .unwrap_or("unknown")
        .split(['/', ' '])
        .next()
        .unwrap_or("unknown");
    let agent: String = agent.chars().filter(|c| !c.is_control()).take(128).collect();
    let validation = query.text("fieldValidation");
    if !["", "Ignore", "Strict", "Warn"].contains(&validation) {
        let why = format!(
            "Unsupported value: {validation:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        );
        return Err(invalid_options("PatchOptions", "fieldValidation", &why));
    }
    Ok(WriteOptions {
        manager: given.unwrap_or(agent),
        dry_run: dry_run(&query.all("dryRun"))?,
        force: false,
        ignore_unknown: validation == "Ignore",
    })
}

fn dry_run(values: &[String]) -> Result<bool, Status> {
    if let Some(other) = values.iter().find(|value| *value != "All") {
        let why = format!("Unsupported value: {other:?}: supported values: \"All\"");
        return Err(invalid_options("PatchOptions", "dryRun", &why));
    }
    Ok(!values.is_empty())
}

/// A refusal of query parameters, as Kubernetes words it.
fn invalid_options(kind: &str, field: &str, why: &str) -> Status {
    let reason = match why.split(':').next().unwrap_or_default() {
        "Forbidden" => "FieldValueForbidden",
        "Required value" => "FieldValueRequired",
        "Unsupported value" => "FieldValueNotSupported",
        _ => "FieldValueInvalid",
    };
    let message = format!("{kind}.meta.k8s.io \"\" is invalid: {field}: {why}");
    Status::new(422, "Invalid", message).with_causes([(reason.into(), why.into(), field.into())])
}
