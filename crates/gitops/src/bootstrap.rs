//! The host's own source: what `host.toml` or the orchestrator says, as the objects that everything else comes from.

use std::collections::BTreeMap;

use apiserver::{
    Client, Status,
    admission::git::{ASSIGNMENT, HOST_TOML},
    client::Applied,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kinds::{
    flux::{GitRef, OWNER_NAME, OWNER_NAMESPACE},
    object::Gvr,
};
use serde_json::{Map, Value, json};

use crate::{
    desired::SOURCE_PATH,
    git::url::{Scheme, Url},
    kustomizations, source,
};

/// Namespace of the host's own GitRepository and Kustomization.
pub const NAMESPACE: &str = "flux-system";

/// Name of the host's own GitRepository and Kustomization.
pub const NAME: &str = "selvedge-site";

/// Name of the ConfigMap and the Secret with the site's variables, in [`NAMESPACE`].
pub const VARIABLES: &str = "selvedge-site-variables";

/// Who said where the site's folder is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// `host.toml`
    #[default]
    HostToml,
    /// The orchestrator.
    Assignment,
}

/// Where the site's folder is.
#[derive(Clone, Default)]
pub struct BootstrapSource {
    /// The repository's address.
    pub url: String,
    /// What of it; nothing set is the branch `main`.
    pub reference: GitRef,
    /// The folder, from the root of the repository.
    pub path: String,
    /// How often to look, as `1m`.
    pub interval: String,
    /// For signing in, by the keys that a GitRepository's Secret has: `username`, `password`, `bearerToken`,
    /// `ca.crt`, `identity`, `known_hosts`. Empty for none.
    pub secret: Vec<(String, Vec<u8>)>,
    /// Who said so.
    pub origin: Origin,
    /// The site's variables, for the substitutions of `postBuild`.
    pub variables: BTreeMap<String, String>,
    /// The same for what must not be read by everybody.
    pub secret_variables: BTreeMap<String, String>,
    /// What is known of the host: variables too, but if there are no others nothing is substituted, so that the scripts
    /// of a site that uses no variables stay as they are. Variables of the site win.
    pub facts: BTreeMap<String, String>,
    /// Set: nothing is fetched, for this reason (a sentence's end, after "nothing is fetched: ").
    pub suspended: Option<String>,
}

/// Annotation: why nothing is fetched.
pub(crate) const SUSPENDED: &str = "selvedge.dev/suspended";

/// Whether a name can be that of a variable.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    let start = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(start) && name.len() <= 200 && name.chars().all(|c| start(c) || c.is_ascii_digit())
}

/// Whether a repository's address can be used at all.
///
/// # Errors
/// Why not, a sentence.
pub fn check_url(address: &str) -> Result<(), String> {
    let error = match Url::parse(address) {
        Ok(_) => return Ok(()),
        Err(error) => error.message,
    };
    Err(error.strip_prefix("spec.url: ").unwrap_or(&error).to_owned())
}

/// Whether two addresses are of one repository, however they are written.
#[must_use]
pub fn same_repository(one: &str, other: &str) -> bool {
    match (Url::parse(one), Url::parse(other)) {
        (Ok(one), Ok(other)) => one.address == other.address,
        _ => one == other,
    }
}

/// Makes the GitRepository, the Kustomization and, if there is something secret, the Secret; again at each
/// start, so that a change of `host.toml` counts. The site's variables become a ConfigMap and a Secret, both named
/// [`VARIABLES`]. All carry the marks of objects that Git owns: people's writes are refused. No inventory has them, so
/// nothing prunes them. A source that was [suspended](suspend) goes on.
///
/// What is there already and is the same is not written again. Being cut off between two objects does no harm when it is
/// called again: what the later ones name is made first.
///
/// Returns whether anything changed: then signal the reconciler of Kustomizations, which does not watch variables.
///
/// # Errors
/// What the API refused.
pub async fn bootstrap(client: &Client, source: &BootstrapSource) -> Result<bool, Status> {
    let origin = match source.origin {
        Origin::HostToml => HOST_TOML,
        Origin::Assignment => ASSIGNMENT,
    };
    let metadata = |name: &str| {
        json!({
            "name": name,
            "namespace": NAMESPACE,
            "labels": {OWNER_NAME: NAME, OWNER_NAMESPACE: NAMESPACE},
            "annotations": {SOURCE_PATH: origin, "kustomize.toolkit.fluxcd.io/prune": "disabled"},
        })
    };
    let secret = |name: &str, data: Map<String, Value>| json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name), "data": data});
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
    let mut gone = Vec::new();
    if source.secret.is_empty() {
        gone.push(("secrets", NAME));
    } else {
        let data = source.secret.iter();
        let data = data.map(|(key, bytes)| (key.clone(), STANDARD.encode(bytes).into()));
        objects.push(secret(NAME, data.collect()));
    }
    let mut substitutes = Vec::new();
    let plain: BTreeMap<&String, &String> = source.facts.iter().chain(&source.variables).collect();
    if plain.is_empty() {
        gone.push(("configmaps", VARIABLES));
    } else {
        objects.push(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(VARIABLES), "data": plain,
        }));
        substitutes.push(json!({"kind": "ConfigMap", "name": VARIABLES}));
    }
    if source.secret_variables.is_empty() {
        gone.push(("secrets", VARIABLES));
    } else {
        let data = source.secret_variables.iter();
        let data = data.map(|(name, value)| (name.clone(), STANDARD.encode(value).into()));
        objects.push(secret(VARIABLES, data.collect()));
        substitutes.push(json!({"kind": "Secret", "name": VARIABLES}));
    }
    if source.variables.is_empty() && source.secret_variables.is_empty() {
        substitutes.clear();
    }
    let interval = if source.interval.is_empty() {
        "1m"
    } else {
        &source.interval
    };
    let mut spec =
        json!({"url": in_full(&source.url), "interval": interval, "ref": reference(&source.reference)});
    if !source.secret.is_empty() {
        spec["secretRef"] = json!({"name": NAME});
    }
    let mut about = metadata(NAME);
    if let Some(why) = &source.suspended {
        spec["suspend"] = true.into();
        about["annotations"][SUSPENDED] = why.as_str().into();
    }
    objects.push(json!({
        "apiVersion": source::gvr().api_version(), "kind": "GitRepository", "metadata": about, "spec": spec,
    }));
    let mut spec = json!({
        "interval": interval,
        "path": if source.path.is_empty() { "./" } else { &source.path },
        "prune": true,
        "sourceRef": {"kind": "GitRepository", "name": NAME},
    });
    if !substitutes.is_empty() {
        spec["postBuild"] = json!({"substituteFrom": substitutes});
    }
    objects.push(json!({
        "apiVersion": kustomizations::gvr().api_version(), "kind": "Kustomization", "metadata": metadata(NAME), "spec": spec,
    }));
    let mut changed = false;
    for object in &objects {
        changed |= client.apply(object, true, false).await?.0 != Applied::Unchanged;
    }
    // Nothing names them any more.
    for (plural, name) in gone {
        client.delete(&Gvr::new("v1", plural), NAMESPACE, name).await?;
    }
    Ok(changed)
}

/// Nobody says any more where the site's folder is: the host's own source is no longer fetched. What was applied last
/// stays, is kept so, and is guarded as before. Whether there is such a source.
///
/// # Errors
/// What the API refused.
pub async fn suspend(client: &Client) -> Result<bool, Status> {
    let Some(object) = client.get(&source::gvr(), NAMESPACE, NAME).await? else {
        return Ok(false);
    };
    let field = |path: &str| object.pointer(path).cloned().unwrap_or_default();
    let mut spec = field("/spec");
    spec["suspend"] = true.into();
    let object = json!({
        "apiVersion": source::gvr().api_version(), "kind": "GitRepository", "spec": spec,
        "metadata": {
            "name": NAME, "namespace": NAMESPACE, "labels": field("/metadata/labels"),
            "annotations": {SOURCE_PATH: field("/metadata/annotations")[SOURCE_PATH],
                "kustomize.toolkit.fluxcd.io/prune": "disabled",
                SUSPENDED: "neither host.toml nor an orchestrator names a source for this host any more"},
        },
    });
    client.apply(&object, true, false).await?;
    Ok(true)
}

/// The address as a GitRepository has it, which knows neither `user@host:path` nor a bare path.
fn in_full(address: &str) -> String {
    match Url::parse(address) {
        Ok(url) if matches!(url.scheme, Scheme::Ssh | Scheme::File) => url.address,
        _ => address.into(),
    }
}

fn reference(reference: &GitRef) -> Value {
    let fields = [
        ("branch", &reference.branch),
        ("tag", &reference.tag),
        ("semver", &reference.semver),
        ("name", &reference.name),
        ("commit", &reference.commit),
    ];
    let mut map: Map<String, Value> = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value.clone()?.into())))
        .collect();
    if map.is_empty() {
        map.insert("branch".into(), "main".into());
    }
    map.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables() {
        for good in ["A", "_a1", "shop_NAME"] {
            assert!(is_variable(good), "{good}");
        }
        for bad in ["", "1a", "a-b", "a.b", "ä", "a b", "${a}"] {
            assert!(!is_variable(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_are_as_the_api_takes_them() {
        for (written, meant) in [
            (
                "git@git.example.com:sites.git",
                "ssh://git@git.example.com/sites.git",
            ),
            (
                "ssh://git@git.example.com:2222/sites.git",
                "ssh://git@git.example.com:2222/sites.git",
            ),
            ("/media/site.git", "file:///media/site.git"),
            (
                "https://me:word@git.example.com/sites.git",
                "https://me:word@git.example.com/sites.git",
            ),
        ] {
            assert_eq!(check_url(written), Ok(()));
            assert_eq!(in_full(written), meant);
        }
        let error = check_url("ftp://git.example.com/sites.git").unwrap_err();
        assert!(error.starts_with("`ftp://` is not supported"), "{error}");
    }
}
