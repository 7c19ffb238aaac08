//! What a Secret gives to sign in with, put where only this process and its git can read it: environment
//! variables of the child, and files in a folder that is removed after the fetch. Never on a command line,
//! never in a repository's configuration.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Class, Git, GitError,
    url::{Scheme, Url},
};

/// The content of a Secret.
#[derive(Clone, Default)]
pub(crate) struct Credentials(BTreeMap<String, Vec<u8>>);

impl Credentials {
    /// From a Secret object; `data` is base64, `stringData` is text.
    pub(crate) fn of(secret: &Value) -> Self {
        let mut data = BTreeMap::new();
        let entries = |field: &str| secret.get(field).and_then(Value::as_object).into_iter().flatten();
        for (key, value) in entries("data") {
            if let Some(bytes) = value.as_str().and_then(|text| STANDARD.decode(text.trim()).ok()) {
                data.insert(key.clone(), bytes);
            }
        }
        for (key, value) in entries("stringData") {
            if let Some(text) = value.as_str() {
                data.insert(key.clone(), text.as_bytes().to_vec());
            }
        }
        Self(data)
    }

    fn text(&self, key: &str) -> Option<String> {
        let bytes = self.0.get(key)?;
        let text = String::from_utf8_lossy(bytes);
        // People make Secrets from files that end in a newline; no password does.
        let text = text.trim_end_matches(['\r', '\n']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn first(&self, keys: &[&str]) -> Option<&[u8]> {
        keys.iter().find_map(|key| self.0.get(*key)).map(Vec::as_slice)
    }
}

/// Makes a folder under `run` that only root can enter, with the parts that every git call needs.
pub(crate) fn private_folder(run: &Path) -> io::Result<TempDir> {
    let base = run.join("gitops");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&base)?;
    let folder = tempfile::Builder::new().prefix("git-").tempdir_in(base)?;
    // A repository on a local medium may belong to anybody.
    write(&folder.path().join("gitconfig"), b"[safe]\n\tdirectory = *\n")?;
    Ok(folder)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    Ok(path.into())
}

/// Tells `git` how to sign in at `url`. Files go to `private`.
pub(crate) fn equip(
    git: &mut Git,
    url: &Url,
    secret: Option<&Credentials>,
    private: &Path,
) -> Result<(), GitError> {
    git.config(&format!("protocol.{}.allow", url.scheme.name()), "always");
    let none = Credentials::default();
    let secret = secret.unwrap_or(&none);
    let failed = |e: io::Error| {
        GitError::new(
            Class::Other,
            format!("can't write into {}: {e}", private.display()),
        )
    };
    match url.scheme {
        Scheme::Http | Scheme::Https => {
            if let Some(ca) = secret.first(&["ca.crt", "caFile"]) {
                let file = write(&private.join("ca.crt"), ca).map_err(failed)?;
                git.config("http.sslCAInfo", &file.to_string_lossy());
            }
            if let (Some(cert), Some(key)) = (secret.first(&["tls.crt"]), secret.first(&["tls.key"])) {
                let cert = write(&private.join("tls.crt"), cert).map_err(failed)?;
                let key = write(&private.join("tls.key"), key).map_err(failed)?;
                git.config("http.sslCert", &cert.to_string_lossy());
                git.config("http.sslKey", &key.to_string_lossy());
            }
            if let Some(header) = authorization(git, url, secret) {
                git.config("http.extraHeader", &format!("Authorization: {header}"));
                // The header would go along to wherever the server points.
                git.config("http.followRedirects", "false");
            }
        }
        Scheme::Ssh => {
            let Some(identity) = secret.first(&["identity"]) else {
                return Err(GitError::new(
                    Class::Authentication,
                    "the Secret for ssh has no key `identity`",
                ));
            };
            let Some(known_hosts) = secret.first(&["known_hosts"]) else {
                return Err(GitError::new(
                    Class::Identity,
                    "the Secret for ssh has no key `known_hosts`",
                ));
            };
            let mut identity = identity.to_vec();
            if !identity.ends_with(b"\n") {
                identity.push(b'\n');
            }
            let identity = write(&private.join("identity"), &identity).map_err(failed)?;
            let known_hosts = write(&private.join("known_hosts"), known_hosts).map_err(failed)?;
            git.env("GIT_SSH_VARIANT", "ssh");
            git.env("GIT_SSH_COMMAND", format!(
                "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o IdentityAgent=none -o UserKnownHostsFile={} \
                 -o GlobalKnownHostsFile=/dev/null -o StrictHostKeyChecking=yes -o BatchMode=yes \
                 -o ConnectTimeout=20 -o ServerAliveInterval=15 -o ForwardAgent=no -o PermitLocalCommand=no",
                quoted(&identity),
                quoted(&known_hosts),
            ));
        }
        Scheme::File => {}
    }
    Ok(())
}

fn authorization(git: &mut Git, url: &Url, secret: &Credentials) -> Option<String> {
    if let Some(token) = secret.text("bearerToken") {
        git.hide(&token);
        return Some(format!("Bearer {token}"));
    }
    let password = secret.text("password").or_else(|| url.password.clone());
    let user = secret.text("username").or_else(|| url.user.clone());
    if user.is_none() && password.is_none() {
        return None;
    }
    let (user, password) = (user.unwrap_or_default(), password.unwrap_or_default());
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    git.hide(&password);
    git.hide(&encoded);
    Some(format!("Basic {encoded}"))
}

/// For the shell that git hands the ssh command to.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}
