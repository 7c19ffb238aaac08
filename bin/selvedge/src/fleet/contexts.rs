//! `~/.config/selvedge/config.toml`: the orchestrators that were logged in to. It holds secrets: mode 0600.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// The file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Contexts {
    /// The one that counts if nothing is said.
    pub(crate) current: Option<String>,
    pub(crate) context: BTreeMap<String, Context>,
}

/// An orchestrator, and who one is there.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Context {
    /// `https://orchestrator.example:8443`
    pub(crate) url: String,
    /// The CA of its certificate, PEM; none for the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    #[serde(flatten)]
    pub(crate) credential: Option<Credential>,
}

/// What one signs in with.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Credential {
    /// An API token.
    Token { token: String },
    /// A session of a person.
    Session { session: String, user: String },
}

impl Credential {
    /// What is sent as `Authorization: Bearer`.
    pub(crate) fn bearer(&self) -> &str {
        match self {
            Self::Token { token } => token,
            Self::Session { session, .. } => session,
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("url", &self.url)
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl Contexts {
    /// Where the file is.
    pub(crate) fn file() -> anyhow::Result<PathBuf> {
        if let Some(file) = std::env::var_os("SELVEDGE_CLIENT_CONFIG") {
            return Ok(file.into());
        }
        let base = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))
            .context("HOME is not set: where is your configuration?")?;
        Ok(base.join("selvedge/config.toml"))
    }

    /// What is stored; nothing if there is no file.
    pub(crate) fn read() -> anyhow::Result<Self> {
        Self::read_from(&Self::file()?)
    }

    fn read_from(file: &Path) -> anyhow::Result<Self> {
        match std::fs::read_to_string(file) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("{} is damaged", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("can't read {}", file.display())),
        }
    }

    /// Stores.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        self.write_to(&Self::file()?)
    }

    fn write_to(&self, file: &Path) -> anyhow::Result<()> {
        let write = || -> std::io::Result<()> {
            let folder = file.parent().unwrap_or(Path::new("."));
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let text = toml::to_string_pretty(self).map_err(std::io::Error::other)?;
            let beside = file.with_extension(format!("new.{}", std::process::id()));
            let mut options = std::fs::OpenOptions::new();
            std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create(true).truncate(true), 0o600);
            let mut new = options.open(&beside)?;
            new.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            std::fs::rename(&beside, file)
        };
        write().with_context(|| format!("can't write {}", file.display()))
    }

    /// A context by name, or the current one.
    pub(crate) fn find(&self, name: Option<&str>) -> anyhow::Result<Context> {
        let Some(name) = name.or(self.current.as_deref()) else {
            bail!("no orchestrator is known; log in with `selvedge login URL`");
        };
        match self.context.get(name) {
            Some(context) => Ok(context.clone()),
            None => {
                let names: Vec<&str> = self.context.keys().map(String::as_str).collect();
                bail!("there is no context {name:?}; there are: {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/config.toml");
        assert_eq!(Contexts::read_from(&file).unwrap(), Contexts::default());
        let context = |credential| Context {
            url: "https://o:8443".into(),
            ca: Some("PEM".into()),
            tenant: Some("acme".into()),
            credential,
        };
        let token = Credential::Token {
            token: "slv_x".into(),
        };
        let session = Credential::Session {
            session: "s".into(),
            user: "ada".into(),
        };
        let contexts = Contexts {
            current: Some("one".into()),
            context: BTreeMap::from([
                ("one".into(), context(Some(token))),
                ("two".into(), context(Some(session))),
                ("three".into(), context(None)),
            ]),
        };
        contexts.write_to(&file).unwrap();
        assert_eq!(Contexts::read_from(&file).unwrap(), contexts);
        assert_eq!(
            std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(!format!("{contexts:?}").contains("slv_x"));
        assert!(
            contexts
                .find(Some("four"))
                .unwrap_err()
                .to_string()
                .contains("one")
        );
        assert!(
            Contexts::default()
                .find(None)
                .unwrap_err()
                .to_string()
                .contains("selvedge login")
        );
    }
}
