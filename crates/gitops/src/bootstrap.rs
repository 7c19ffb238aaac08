//! The host's own source: what `host.toml` says, as the objects that everything else comes from.

use apiserver::{Client, Status};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kinds::flux::{GitRef, OWNER_NAME, OWNER_NAMESPACE};
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

/// Makes the GitRepository, the Kustomization and, if there is something secret, the Secret; again at each
/// start, so that a change of `host.toml` counts. They carry the marks of objects that Git owns: people's
/// writes are refused. No inventory has them, so nothing prunes them.
///
/// # Errors
/// What the API refused.
pub async fn bootstrap(client: &Client, source: &BootstrapSource) -> Result<(), Status> {
    let metadata = |name: &str| {
        json!({
            "name": name,
            "namespace": NAMESPACE,
            "labels": {OWNER_NAME: NAME, OWNER_NAMESPACE: NAMESPACE},
            "annotations": {SOURCE_PATH: "host.toml", "kustomize.toolkit.fluxcd.io/prune": "disabled"},
        })
    };
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
    if source.secret.is_empty() {
        client
            .delete(&kinds::object::Gvr::new("v1", "secrets"), NAMESPACE, NAME)
            .await?;
    } else {
        let data: Map<String, Value> = source
            .secret
            .iter()
            .map(|(key, bytes)| (key.clone(), STANDARD.encode(bytes).into()))
            .collect();
        objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(NAME), "data": data}));
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
    objects.push(json!({
        "apiVersion": source::gvr().api_version(), "kind": "GitRepository", "metadata": metadata(NAME), "spec": spec,
    }));
    objects.push(json!({
        "apiVersion": kustomizations::gvr().api_version(), "kind": "Kustomization", "metadata": metadata(NAME),
        "spec": {
            "interval": interval,
            "path": if source.path.is_empty() { "./" } else { &source.path },
            "prune": true,
            "sourceRef": {"kind": "GitRepository", "name": NAME},
        },
    }));
    for object in &objects {
        client.apply(object, true, false).await?;
    }
    Ok(())
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
