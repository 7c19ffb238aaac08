//! Looking at repositories elsewhere: is it there, what is at its branch, and a copy for commits and plans.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Git, GitError, Store, init};

/// A look at a server's references.
const LOOK: Duration = Duration::from_secs(30);
/// A fetch into the copy.
const FETCH: Duration = Duration::from_secs(300);

/// Where a repository is and how to sign in. Never shown: it has no `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Remote {
    pub(crate) url: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) bearer: Option<String>,
    pub(crate) identity: Option<String>,
    pub(crate) known_hosts: Option<String>,
    pub(crate) ca: Option<String>,
}

/// Files that live as long as one call.
struct Scratch(PathBuf);

impl Scratch {
    fn new(base: &Path) -> std::io::Result<Self> {
        let folder = base.join(uuid::Uuid::new_v4().to_string());
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&folder)?;
        Ok(Self(folder))
    }

    fn write(&self, name: &str, content: &str) -> std::io::Result<String> {
        let path = self.0.join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(content.as_bytes())?;
        if !content.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok(path.to_string_lossy().into_owned())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `https`, `http` or `ssh`, and the address with its path; refuses what would run a program or read our disk.
pub(crate) fn scheme(url: &str) -> Result<&'static str, GitError> {
    let wrong = |why: &str| Err(GitError(why.to_owned()));
    if url.starts_with('-') || url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return wrong("the URL has characters that no address has");
    }
    let (scheme, rest) = match url.split_once("://") {
        Some(("https", rest)) => ("https", rest),
        Some(("http", rest)) => ("http", rest),
        Some(("ssh", rest)) => ("ssh", rest),
        Some(_) => return wrong("the URL must start with https://, http:// or ssh://, or be user@host:path"),
        None => match url.split_once(':') {
            Some((host, path)) if !host.contains('/') && !path.is_empty() && !path.starts_with(':') => {
                ("ssh", url)
            }
            _ => return wrong("the URL must start with https://, http:// or ssh://, or be user@host:path"),
        },
    };
    let authority = rest.split(['/', ':']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // ssh would take such a host for an option.
    if host.is_empty() || host.starts_with('-') || authority.starts_with('-') {
        return wrong("the URL names no host");
    }
    Ok(scheme)
}

impl Remote {
    fn equip(&self, store: &Store) -> Result<(Git, Scratch), GitError> {
        let failed =
            |error: std::io::Error| GitError(format!("can't write the credentials for git: {error}"));
        let scheme = scheme(&self.url)?;
        let scratch = Scratch::new(&store.run_dir()).map_err(failed)?;
        let mut git = Git::new();
        git.config(&format!("protocol.{scheme}.allow"), "always");
        // Credentials would go along to wherever the server points.
        git.config("http.followRedirects", "false");
        if scheme == "ssh" {
            let Some(identity) = &self.identity else {
                return Err(GitError(
                    "ssh needs a private key: give the repository one".into(),
                ));
            };
            let Some(known_hosts) = &self.known_hosts else {
                return Err(GitError(
                    "ssh needs known_hosts: give the repository the server's line".into(),
                ));
            };
            let identity = scratch.write("identity", identity).map_err(failed)?;
            let known_hosts = scratch.write("known_hosts", known_hosts).map_err(failed)?;
            git.env("GIT_SSH_VARIANT", "ssh");
            git.env(
                "GIT_SSH_COMMAND",
                format!(
                    "ssh -F /dev/null -i {identity} -o IdentitiesOnly=yes -o IdentityAgent=none \
                     -o UserKnownHostsFile={known_hosts} -o GlobalKnownHostsFile=/dev/null \
                     -o StrictHostKeyChecking=yes -o BatchMode=yes -o ConnectTimeout=20 \
                     -o ServerAliveInterval=15 -o ForwardAgent=no -o PermitLocalCommand=no"
                ),
            );
            return Ok((git, scratch));
        }
        if let Some(ca) = &self.ca {
            git.config("http.sslCAInfo", scratch.write("ca.pem", ca).map_err(failed)?);
        }
        if let Some(bearer) = &self.bearer {
            git.hide(bearer);
            git.config("http.extraHeader", format!("Authorization: Bearer {bearer}"));
        } else if self.username.is_some() || self.password.is_some() {
            let password = self.password.as_deref().unwrap_or_default();
            let both = STANDARD.encode(format!(
                "{}:{password}",
                self.username.as_deref().unwrap_or_default()
            ));
            git.hide(password);
            git.hide(&both);
            git.config("http.extraHeader", format!("Authorization: Basic {both}"));
        }
        Ok((git, scratch))
    }

    /// Whether the server lets us in and has the branch: its commit, `None` if the branch is not there.
    pub(crate) async fn head(&self, store: &Store, branch: &str) -> Result<Option<String>, GitError> {
        if !super::good_reference(branch) {
            return Err(GitError(format!("{branch:?} is no branch")));
        }
        let _permit = store.permit().await?;
        let (git, _scratch) = self.equip(store)?;
        let reference = format!("refs/heads/{branch}");
        let out = git
            .run(
                None,
                &[
                    "ls-remote".as_ref(),
                    "--".as_ref(),
                    self.url.as_ref(),
                    reference.as_ref(),
                ],
                LOOK,
            )
            .await?;
        Ok(String::from_utf8_lossy(&out)
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .find(|(_, name)| *name == reference)
            .map(|(commit, _)| commit.to_owned()))
    }

    /// Brings the copy up to the server: its branches, and the newest commits of each.
    pub(crate) async fn fetch(&self, store: &Store, folder: &Path) -> Result<(), GitError> {
        init(folder, "main").await?;
        let _permit = store.permit().await?;
        let (git, _scratch) = self.equip(store)?;
        git.run(
            Some(folder),
            &[
                "fetch".as_ref(),
                "--quiet".as_ref(),
                "--prune".as_ref(),
                "--no-tags".as_ref(),
                "--depth=200".as_ref(),
                "--no-recurse-submodules".as_ref(),
                "--".as_ref(),
                self.url.as_ref(),
                "+refs/heads/*:refs/heads/*".as_ref(),
            ],
            FETCH,
        )
        .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_can_be_looked_at() {
        for (url, want) in [
            ("https://git.example/a.git", "https"),
            ("http://git.example/a.git", "http"),
            ("ssh://git@git.example/a", "ssh"),
            ("git@git.example:a/b.git", "ssh"),
        ] {
            assert_eq!(scheme(url).unwrap(), want);
        }
        for url in [
            "",
            "/etc",
            "file:///etc",
            "ext::sh -c id",
            "ext::id",
            "--upload-pack=id",
            "ssh://-oProxyCommand=id/x",
            "-oProxyCommand=id:x",
            "https://",
            "https://a b/",
            "fd::7",
        ] {
            assert!(scheme(url).is_err(), "{url}");
        }
    }
}
