//! The paths of a group version. Old and new kubectl look here for what a PATCH may be and which parameters it takes.

use kinds::registry::{KindDef, Scope, VersionDef};
use serde_json::{Map, Value, json};

use super::{gv_key, schemas};

/// The patch types of a kind. Kubernetes' own kinds know strategic merge patches.
pub(super) fn patch_types(kind: &KindDef) -> Vec<&'static str> {
    let mut types = vec!["application/json-patch+json", "application/merge-patch+json"];
    if kind.group.is_empty() || kind.group.ends_with(".k8s.io") {
        types.push("application/strategic-merge-patch+json");
    }
    types.push("application/apply-patch+yaml");
    types
}

/// Adds the paths of one version of a kind.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &KindDef, version: &VersionDef) {
    let root = format!("/{}", gv_key(&kind.group, &version.name));
    let namespaced = kind.scope == Scope::Namespaced;
    let operation = |action: &str, verb: &str| Operation {
        kind,
        version: &version.name,
        action: action.into(),
        verb: verb.into(),
    };
    let (collection, mut parameters) = if namespaced {
        let all = operation("list", "listAll").build(&[]);
        let mut item = Map::new();
        item.insert("get".into(), all);
        item.insert("parameters".into(), Value::Array(query(&LIST)));
        paths.insert(format!("{root}/{}", kind.plural), Value::Object(item));
        (
            format!("{root}/namespaces/{{namespace}}/{}", kind.plural),
            vec![path_parameter("namespace")],
        )
    } else {
        (format!("{root}/{}", kind.plural), Vec::new())
    };
    paths.insert(
        collection.clone(),
        json!({
            "get": operation("list", "list").build(&LIST),
            "post": operation("post", "create").build(&WRITE),
            "delete": operation("deletecollection", "deleteCollection").build(&LIST),
            "parameters": parameters,
        }),
    );
    parameters.push(path_parameter("name"));
    paths.insert(
        format!("{collection}/{{name}}"),
        json!({
            "get": operation("get", "read").build(&[]),
            "put": operation("put", "replace").build(&WRITE),
            "patch": operation("patch", "patch").build(&PATCH),
            "delete": operation("delete", "delete").build(&DELETE),
            "parameters": parameters,
        }),
    );
    if kind.has_status {
        paths.insert(
            format!("{collection}/{{name}}/status"),
            json!({
                "get": operation("get", "readStatus").build(&[]),
                "put": operation("put", "replaceStatus").build(&WRITE),
                "patch": operation("patch", "patchStatus").build(&PATCH),
                "parameters": parameters,
            }),
        );
    }
}

type Parameter = (&'static str, &'static str, &'static str);

const LIST: [Parameter; 9] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Send a mark of the newest revision now and then.",
    ),
    ("continue", "string", "Where the page before ended."),
    ("fieldSelector", "string", "Only objects with these fields."),
    ("labelSelector", "string", "Only objects with these labels."),
    ("limit", "integer", "At most so many objects."),
    (
        "resourceVersion",
        "string",
        "The revision to show, or to watch from.",
    ),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant: `Exact` or `NotOlderThan`.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "End the watch after so many seconds.",
    ),
    ("watch", "boolean", "Send changes as they happen."),
];
const WRITE: [Parameter; 3] = [
    ("dryRun", "string", "`All` checks everything and changes nothing."),
    ("fieldManager", "string", "The name of the writer."),
    (
        "fieldValidation",
        "string",
        "What unknown fields are: `Ignore`, `Warn` or `Strict`.",
    ),
];
const PATCH: [Parameter; 4] = [
    WRITE[0],
    WRITE[1],
    WRITE[2],
    ("force", "boolean", "Take fields from other managers."),
];
const DELETE: [Parameter; 3] = [
    WRITE[0],
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds to give the object; 0 is at once.",
    ),
    ("propagationPolicy", "string", "What happens to dependents."),
];

fn query(parameters: &[Parameter]) -> Vec<Value> {
    let one = |(name, kind, description): &Parameter| json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}});
    parameters.iter().map(one).collect()
}

fn path_parameter(name: &str) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": format!("The object's {name}."),
        "schema": {"type": "string", "uniqueItems": true},
    })
}

struct Operation<'a> {
    kind: &'a KindDef,
    version: &'a str,
    action: String,
    verb: String,
}

impl Operation<'_> {
    fn build(&self, parameters: &[Parameter]) -> Value {
        let kind = self.kind;
        let own = schemas::name(kind, self.version);
        let answer = match self.action.as_str() {
            "list" => format!("{own}List"),
            "delete" | "deletecollection" => schemas::STATUS.into(),
            _ => own.clone(),
        };
        let tag = format!(
            "{}_{}",
            if kind.group.is_empty() {
                "core"
            } else {
                &kind.group
            },
            self.version
        );
        let mut operation = json!({
            "operationId": format!("{}{}{}", self.verb, tag.replace(['.', '-'], "_"), kind.kind),
            "tags": [tag],
            "parameters": query(parameters),
            "responses": {
                "200": {"description": "OK", "content": {"application/json": {"schema": schemas::reference(&answer)}}},
                "401": {"description": "Unauthorized"},
            },
            "x-kubernetes-action": self.action,
            "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": self.version},
        });
        let body = |types: &[&str], name: &str| {
            let content: Map<String, Value> = types
                .iter()
                .map(|t| ((*t).to_owned(), json!({"schema": schemas::reference(name)})))
                .collect();
            json!({"required": true, "content": content})
        };
        match self.action.as_str() {
            "post" | "put" => {
                operation["requestBody"] = body(&["application/json", "application/yaml"], &own);
            }
            "patch" => operation["requestBody"] = body(&patch_types(kind), schemas::PATCH),
            "delete" => {
                operation["requestBody"] = body(&["application/json"], schemas::DELETE_OPTIONS);
                operation["requestBody"]["required"] = false.into();
            }
            _ => {}
        }
        operation
    }
}
