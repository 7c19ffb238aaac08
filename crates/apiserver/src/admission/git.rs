//! Only Git writes what Git owns.

use async_trait::async_trait;
use kinds::{
    flux::{OWNER_NAME, OWNER_NAMESPACE, REQUESTED_AT},
    gvr,
    object::{self, Gvr, Object},
    registry::{KindDef, Scope},
};
use serde_json::Value;

use super::{Admission, Request, Verb};
use crate::{
    Api, Caller, Status,
    api::{
        BREAK_GLASS, ListOptions, SYSTEM, Target,
        roles::{Role, is_steering},
    },
    status::qualified,
};

/// Annotation: the file in the repository that an object comes from.
pub const SOURCE_PATH: &str = "selvedge.dev/source-path";

/// What [`SOURCE_PATH`] says of objects that `host.toml` asks for.
pub const HOST_TOML: &str = "host.toml";

/// What [`SOURCE_PATH`] says of objects that the orchestrator's assignment asks for.
pub const ASSIGNMENT: &str = "orchestrator";

/// Refuses writes of people to objects that a Kustomization applied, and says where to change them instead.
///
/// Free are: the daemon itself, members of the break-glass group, `status`, and the annotation
/// `reconcile.fluxcd.io/requestedAt` of GitRepositories and Kustomizations. A dry run passes with a warning, so
/// that `kubectl diff` works.
#[derive(Clone, Copy, Debug, Default)]
pub struct GitOwned;

/// Who owns an object.
#[derive(PartialEq, Eq)]
struct Owner {
    namespace: String,
    name: String,
}

impl Owner {
    fn of(object: &Object) -> Option<Self> {
        let name = object::label(object, OWNER_NAME).filter(|name| !name.is_empty())?;
        let namespace = object::label(object, OWNER_NAMESPACE).unwrap_or_default();
        Some(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }
}

#[async_trait]
impl Admission for GitOwned {
    async fn check(&self, api: &Api, request: &Request<'_>) -> Result<Vec<String>, Status> {
        let caller = request.caller;
        if caller.is_in(SYSTEM) || caller.is_in(BREAK_GLASS) || request.subresource == Some("status") {
            return Ok(Vec::new());
        }
        let kind = api
            .registry()
            .by_resource(request.gvr)
            .ok_or_else(Status::no_such_resource)?;
        let object = request.old.or(request.new);
        let owned = request.old.and_then(Owner::of);
        let claimed = request
            .new
            .and_then(Owner::of)
            .filter(|owner| Some(owner) != owned.as_ref());
        if let Some(owner) = owned
            && let Some(object) = object
            && let Some(place) = place(api, &owner, object).await?
        {
            if only_asks_for_a_run(kind, request) {
                return Ok(Vec::new());
            }
            return refuse(kind, request, &format!("Git owns it: {place}"));
        }
        if let Some(owner) = claimed
            && kustomization(api, &owner).await?.is_some()
        {
            let why = format!(
                "the labels {OWNER_NAME} and {OWNER_NAMESPACE} mark what Git owns; leave them out, or put the object into Git"
            );
            return refuse(kind, request, &why);
        }
        if request.verb == Verb::Delete && kind.group.is_empty() && kind.kind == "Namespace" {
            return namespace_with_owned(api, kind, request).await;
        }
        Ok(Vec::new())
    }
}

/// Operators change of a GitRepository or Kustomization only the annotation that asks for a run: the daemon applies with
/// its own rights what these name.
pub(super) fn only_owners_steer(kind: &KindDef, request: &Request<'_>) -> Result<(), Status> {
    let operator = Role::of(request.caller) == Some(Role::Operator);
    if !operator || !is_steering(request.gvr) || only_asks_for_a_run(kind, request) {
        return Ok(());
    }
    let why = format!("of it operators may change only the annotation {REQUESTED_AT}");
    Err(Status::forbidden(kind, request.name, &why))
}

fn refuse(kind: &KindDef, request: &Request<'_>, why: &str) -> Result<Vec<String>, Status> {
    if request.dry_run {
        return Ok(vec![format!(
            "dry run only; the write itself would be refused: {why}"
        )]);
    }
    let cause = ("OwnedByGit".to_owned(), why.to_owned(), String::new());
    Err(Status::forbidden(kind, request.name, why).with_causes([cause]))
}

/// Where to change an object instead; `None` if its Kustomization is gone, so that nothing owns it any more.
async fn place(api: &Api, owner: &Owner, object: &Object) -> Result<Option<String>, Status> {
    let Some(kustomization) = kustomization(api, owner).await? else {
        return Ok(None);
    };
    let text = |object: &Object, pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let source_namespace = text(&kustomization, "/spec/sourceRef/namespace");
    let source = Owner {
        namespace: if source_namespace.is_empty() {
            owner.namespace.clone()
        } else {
            source_namespace
        },
        name: text(&kustomization, "/spec/sourceRef/name"),
    };
    let repository = read(api, &gvr::git_repositories(), &source)
        .await?
        .unwrap_or_default();
    let url = without_credentials(&text(&repository, "/spec/url"));
    let url = if url.is_empty() {
        format!("of GitRepository {}/{}", source.namespace, source.name)
    } else {
        url
    };
    let path = match object::annotation(object, SOURCE_PATH) {
        Some(HOST_TOML) => format!(
            "change host.toml on this host and start selvedge-host again; the site is in the repository {url}"
        ),
        Some(ASSIGNMENT) => format!("change the site at the orchestrator; it is in the repository {url}"),
        Some(path) if !path.is_empty() => format!("change the file {path} in the repository {url} and push"),
        _ => format!(
            "change the folder {} in the repository {url} and push",
            text(&kustomization, "/spec/path")
        ),
    };
    let commits = [
        text(&kustomization, "/status/lastAppliedRevision"),
        text(&kustomization, "/status/lastAttemptedRevision"),
        text(&repository, "/status/artifact/revision"),
    ];
    let commit = commits
        .into_iter()
        .find(|c| !c.is_empty())
        .unwrap_or_else(|| "not known yet".into());
    Ok(Some(format!(
        "{path} (applied now: commit {commit}, by Kustomization {}/{})",
        owner.namespace, owner.name
    )))
}

async fn kustomization(api: &Api, owner: &Owner) -> Result<Option<Object>, Status> {
    read(api, &gvr::kustomizations(), owner).await
}

async fn read(api: &Api, gvr: &Gvr, of: &Owner) -> Result<Option<Object>, Status> {
    if of.name.is_empty() || of.namespace.is_empty() {
        return Ok(None);
    }
    match api
        .get(
            &Caller::system("admission"),
            Target::new(gvr, &of.namespace, &of.name),
        )
        .await
    {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

/// `https://user:token@host/x` is `https://host/x`: the message goes to people and logs.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match authority.rsplit_once('@') {
        // A bare user name, as in ssh://git@host, is no secret.
        Some((user, _)) if !user.contains(':') && scheme == "ssh" => authority,
        Some((_, host)) => host,
        None => authority,
    };
    format!("{scheme}://{host}{path}")
}

/// Whether the annotation that asks for a run is all that changes.
fn only_asks_for_a_run(kind: &KindDef, request: &Request<'_>) -> bool {
    let flux = matches!(
        (kind.group.as_str(), kind.kind.as_str()),
        ("source.toolkit.fluxcd.io", "GitRepository") | ("kustomize.toolkit.fluxcd.io", "Kustomization")
    );
    let (Some(old), Some(new)) = (request.old, request.new) else {
        return false;
    };
    flux && without_request(old) == without_request(new)
}

fn without_request(object: &Object) -> Object {
    let mut object = object.clone();
    let metadata = object::metadata_mut(&mut object);
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(REQUESTED_AT);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    object
}

/// A namespace goes with all that is in it.
async fn namespace_with_owned(
    api: &Api,
    namespaces: &KindDef,
    request: &Request<'_>,
) -> Result<Vec<String>, Status> {
    let caller = Caller::system("admission");
    for kind in api
        .registry()
        .iter()
        .filter(|kind| kind.scope == Scope::Namespaced && !kind.ephemeral)
    {
        let options = ListOptions {
            label_selector: OWNER_NAME.into(),
            limit: 1,
            ..ListOptions::default()
        };
        let page = api
            .list(&caller, &kind.gvr(), Some(request.name), &options)
            .await?;
        for object in &page.items {
            let Some(owner) = Owner::of(object) else { continue };
            if let Some(place) = place(api, &owner, object).await? {
                let what = format!("{} {:?}", qualified(kind), object::name(object));
                return refuse(
                    namespaces,
                    request,
                    &format!("Git owns what is in it, such as {what}: {place}"),
                );
            }
        }
    }
    Ok(Vec::new())
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn credentials_are_left_out() {
        for (url, shown) in [
            ("https://git.example/site", "https://git.example/site"),
            ("https://me:token@git.example/site", "https://git.example/site"),
            (
                "https://token@git.example:8443/a@b",
                "https://git.example:8443/a@b",
            ),
            ("ssh://git@git.example/site", "ssh://git@git.example/site"),
            ("ssh://git:pw@git.example/site", "ssh://git.example/site"),
            ("file:///srv/site", "file:///srv/site"),
            ("git@host:site", "git@host:site"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
