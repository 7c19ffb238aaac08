//! Reading a kubeconfig: the server, whom to trust, and who we are.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

/// What a client needs to speak to a host's API.
#[derive(Debug)]
pub(crate) struct Kubeconfig {
    pub(crate) server: String,
    /// PEM.
    pub(crate) authority: Option<Vec<u8>>,
    /// Certificate chain and key, PEM, one after the other.
    pub(crate) identity: Option<Vec<u8>>,
    pub(crate) token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<Named<Context_>>,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    value: T,
}

#[derive(Deserialize)]
struct Context_ {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
}

impl Kubeconfig {
    /// The file given, else the first of `$KUBECONFIG` that there is, else the host's own.
    pub(crate) fn find(given: Option<&Path>) -> anyhow::Result<Self> {
        let path = given
            .map(Path::to_path_buf)
            .or_else(|| {
                std::env::var_os("KUBECONFIG").and_then(|list| first_there(std::env::split_paths(&list)))
            })
            .unwrap_or_else(|| "/etc/selvedge/admin.kubeconfig".into());
        Self::read(&path)
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "can't read the kubeconfig {}; name another with --kubeconfig",
                path.display()
            )
        })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new(".")))
            .with_context(|| format!("the kubeconfig {} can't be used", path.display()))
    }

    fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        // Its text has that of its source already.
        let file: File = serde_saphyr::from_str(text).map_err(|error| anyhow!("{error}"))?;
        let context = find(&file.contexts, &file.current_context, "context")?;
        let cluster = find(&file.clusters, &context.cluster, "cluster")?;
        let user = find(&file.users, &context.user, "user")?;
        let pem = |data: &Option<String>, file: &Option<PathBuf>| -> anyhow::Result<Option<Vec<u8>>> {
            Ok(match (data, file) {
                (Some(data), _) => Some(
                    STANDARD
                        .decode(data.trim())
                        .context("a -data field is not base64")?,
                ),
                (None, Some(file)) => {
                    let file = folder.join(file);
                    Some(std::fs::read(&file).with_context(|| format!("can't read {}", file.display()))?)
                }
                (None, None) => None,
            })
        };
        let certificate = pem(&user.client_certificate_data, &user.client_certificate)?;
        let key = pem(&user.client_key_data, &user.client_key)?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some([certificate, b"\n".to_vec(), key].concat()),
            (None, None) => None,
            _ => bail!(
                "user {:?} has a client certificate or a client key but not both",
                context.user
            ),
        };
        Ok(Self {
            server: cluster.server.trim_end_matches('/').to_owned(),
            authority: pem(
                &cluster.certificate_authority_data,
                &cluster.certificate_authority,
            )?,
            identity,
            token: user.token.clone(),
        })
    }
}

/// The first file that exists; if none does the first, for the message.
fn first_there(paths: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    let paths: Vec<PathBuf> = paths.filter(|path| !path.as_os_str().is_empty()).collect();
    let there = paths.iter().position(|path| path.exists()).unwrap_or(0);
    paths.into_iter().nth(there)
}

fn find<'a, T>(list: &'a [Named<T>], name: &str, what: &str) -> anyhow::Result<&'a T> {
    let found = list.iter().find(|named| named.name == name);
    Ok(&found
        .with_context(|| format!("it has no {what} named {name:?}"))?
        .value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: 'https://h:6443/', certificate-authority-data: Q0E=}}]
users: [{name: u, user: {client-certificate-data: QQ==, client-key-data: Qg==}}]
";

    #[test]
    fn embedded_certificates_are_decoded() {
        let config = Kubeconfig::parse(GOOD, Path::new(".")).unwrap();
        assert_eq!(config.server, "https://h:6443");
        assert_eq!(config.authority.as_deref(), Some(b"CA".as_slice()));
        assert_eq!(config.identity.as_deref(), Some(b"A\nB".as_slice()));
    }

    #[test]
    fn of_several_files_the_first_that_exists_is_taken() {
        let first = |list: &[&str]| first_there(list.iter().map(PathBuf::from));
        assert_eq!(
            first(&["", "/nowhere", "/proc/self/stat"]),
            Some("/proc/self/stat".into())
        );
        assert_eq!(first(&["/nowhere", "/neither"]), Some("/nowhere".into()));
        assert_eq!(first(&[""]), None);
    }

    #[test]
    fn a_missing_context_is_named() {
        let error = Kubeconfig::parse("current-context: x", Path::new("."))
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"x\""), "{error}");
    }
}
