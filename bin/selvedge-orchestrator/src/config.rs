//! `orchestrator.toml`: where to listen, where the data is, and whom to ask about people.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The whole file. Unknown keys are refused: a typing error must be seen at the start, not at the first need.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) server: Server,
    #[serde(default)]
    pub(crate) database: Database,
    pub(crate) oidc: Option<Oidc>,
    pub(crate) smtp: Option<Smtp>,
    #[serde(default)]
    pub(crate) link: Link,
    #[serde(default)]
    pub(crate) enrollment: Enrollment,
    #[serde(default)]
    pub(crate) repositories: Repositories,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) log: Log,
}

/// The one port, and what it is called from outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    #[serde(default = "everywhere")]
    pub(crate) listen: Vec<SocketAddr>,
    /// What people and hosts use: `https://name[:port]`.
    pub(crate) url: String,
    /// More names and addresses for the certificate that the orchestrator makes itself.
    #[serde(default)]
    pub(crate) names: Vec<String>,
    /// A certificate chain of your own; read again when it changes.
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key.
    pub(crate) key_file: Option<PathBuf>,
    /// Keys, hosted repositories, the SQLite database.
    #[serde(default = "data")]
    pub(crate) data: PathBuf,
    /// Where other orchestrator processes on the same database reach this one: `name:port`.
    pub(crate) peer: Option<String>,
    /// Addresses of reverse proxies whose `X-Forwarded-For` is believed.
    #[serde(default)]
    pub(crate) trusted_proxies: Vec<std::net::IpAddr>,
    /// Who may read `/metrics`, as a file with a bearer token; without it only tokens of platform admins may.
    pub(crate) metrics_token_file: Option<PathBuf>,
}

fn everywhere() -> Vec<SocketAddr> {
    vec![SocketAddr::from(([0, 0, 0, 0], 8443))]
}

fn data() -> PathBuf {
    "/var/lib/selvedge-orchestrator".into()
}

/// Where the fleet is kept.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Database {
    /// `sqlite:PATH` or `postgres://…`; default `sqlite:<data>/fleet.db`.
    pub(crate) url: Option<String>,
    /// A file with the URL, for those who keep passwords out of configuration.
    pub(crate) url_file: Option<PathBuf>,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may carry a password.
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

/// An OpenID Connect provider for people.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Oidc {
    pub(crate) issuer: String,
    pub(crate) client_id: String,
    pub(crate) client_secret_file: Option<PathBuf>,
    /// A CA to trust for the provider, beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
    #[serde(default = "scopes")]
    pub(crate) scopes: Vec<String>,
    /// The claim that becomes the user's name.
    #[serde(default = "preferred_username")]
    pub(crate) username_claim: String,
    /// The claim with the groups that `roles` maps.
    #[serde(default = "groups")]
    pub(crate) groups_claim: String,
    /// The tenant whose people come from this provider.
    pub(crate) tenant: String,
    /// Group → role (`owner`, `operator`, `viewer`). The highest that matches is given in the whole tenant.
    #[serde(default)]
    pub(crate) roles: std::collections::BTreeMap<String, String>,
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(str::to_owned).to_vec()
}

fn preferred_username() -> String {
    "preferred_username".into()
}

fn groups() -> String {
    "groups".into()
}

/// How alerts leave as mail.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Smtp {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// `tls`, `starttls` or `none`.
    #[serde(default = "starttls")]
    pub(crate) security: String,
    pub(crate) username: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) from: String,
    /// A CA to trust for the mail server, beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

fn starttls() -> String {
    "starttls".into()
}

/// Connections of hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Link {
    /// Between heartbeats; two missed are stale, four are offline.
    #[serde(deserialize_with = "span")]
    pub(crate) heartbeat: Duration,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
        }
    }
}

/// How hosts come in.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Enrollment {
    /// Days that a host's certificate is good.
    pub(crate) certificate_days: u32,
}

impl Default for Enrollment {
    fn default() -> Self {
        Self { certificate_days: 30 }
    }
}

/// Git: hosting, and looking at repositories elsewhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Repositories {
    /// Between looks at repositories that are not hosted here.
    #[serde(deserialize_with = "span")]
    pub(crate) poll: Duration,
    /// The largest push to a hosted repository, MiB.
    pub(crate) push_mib: u64,
    /// How many `git` programs run at a time.
    pub(crate) programs: usize,
}

impl Default for Repositories {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(60),
            push_mib: 512,
            programs: 16,
        }
    }
}

/// `30s`, `5m`, as everywhere in Selvedge.
fn span<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    kinds::duration::parse(&text).map_err(serde::de::Error::custom)
}

/// Bounds of the server.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// TLS connections at a time.
    pub(crate) connections: usize,
    /// Connections of one address that are no host's link.
    pub(crate) connections_per_address: usize,
    /// TLS handshakes at a time.
    pub(crate) handshakes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 120_000,
            connections_per_address: 4_096,
            handshakes: 256,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// One JSON object a line.
    pub(crate) json: bool,
    /// The syntax of tracing's EnvFilter; empty means `info`.
    pub(crate) filter: String,
}

impl Config {
    /// Reads and checks the file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| {
            format!(
                "can't read {}; write it, or name another with --config",
                path.display()
            )
        })?;
        let config: Self =
            toml::from_str(&text).with_context(|| format!("{} is not as it should be", path.display()))?;
        config
            .check()
            .with_context(|| format!("{} is not as it should be", path.display()))?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        let server = &self.server;
        let Some(rest) = server.url.strip_prefix("https://") else {
            bail!(
                "server.url: {:?} does not start with https://; there is no plain HTTP",
                server.url
            );
        };
        if rest.is_empty() || rest.trim_end_matches('/').contains('/') {
            bail!(
                "server.url: {:?} must be https://NAME[:PORT] without a path",
                server.url
            );
        }
        if server.listen.is_empty() {
            bail!("server.listen: name at least one address");
        }
        if server.cert_file.is_some() != server.key_file.is_some() {
            bail!("server: cert_file and key_file go together");
        }
        if let (Some(_), Some(_)) = (&self.database.url, &self.database.url_file) {
            bail!("database: give url or url_file, not both");
        }
        if let Some(url) = &self.database.url
            && !["sqlite:", "postgres:", "postgresql:"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
        {
            bail!("database.url: neither sqlite:PATH nor postgres://…");
        }
        if !(1..=398).contains(&self.enrollment.certificate_days) {
            bail!(
                "enrollment.certificate_days: {} is not between 1 and 398",
                self.enrollment.certificate_days
            );
        }
        for (key, value, least) in [
            ("link.heartbeat", self.link.heartbeat, 1),
            ("repositories.poll", self.repositories.poll, 1),
        ] {
            if !(least..=600).contains(&value.as_secs()) {
                bail!("{key}: {value:?} is not between {least} s and 10 m");
            }
        }
        if let Some(oidc) = &self.oidc {
            if !oidc.issuer.starts_with("https://") && !oidc.issuer.starts_with("http://127.0.0.1:") {
                bail!("oidc.issuer: {:?} does not start with https://", oidc.issuer);
            }
            if let Some((group, role)) = oidc
                .roles
                .iter()
                .find(|(_, role)| !matches!(role.as_str(), "owner" | "operator" | "viewer"))
            {
                bail!("oidc.roles: {group:?} = {role:?} is none of owner, operator, viewer");
            }
        }
        if let Some(smtp) = &self.smtp
            && !matches!(smtp.security.as_str(), "tls" | "starttls" | "none")
        {
            bail!(
                "smtp.security: {:?} is none of tls, starttls, none",
                smtp.security
            );
        }
        Ok(())
    }

    /// Opens the files that it names.
    pub(crate) fn check_files(&self) -> anyhow::Result<()> {
        let oidc = self.oidc.as_ref();
        for (key, file) in [
            ("server.cert_file", self.server.cert_file.as_ref()),
            ("server.key_file", self.server.key_file.as_ref()),
            (
                "server.metrics_token_file",
                self.server.metrics_token_file.as_ref(),
            ),
            ("database.url_file", self.database.url_file.as_ref()),
            (
                "oidc.client_secret_file",
                oidc.and_then(|oidc| oidc.client_secret_file.as_ref()),
            ),
            ("oidc.ca_file", oidc.and_then(|oidc| oidc.ca_file.as_ref())),
            (
                "smtp.password_file",
                self.smtp.as_ref().and_then(|smtp| smtp.password_file.as_ref()),
            ),
        ] {
            if let Some(file) = file {
                std::fs::File::open(file).with_context(|| format!("{key}: can't read {}", file.display()))?;
            }
        }
        Ok(())
    }

    /// The public URL without a slash at its end.
    pub(crate) fn url(&self) -> &str {
        self.server.url.trim_end_matches('/')
    }

    /// The host name in the public URL.
    pub(crate) fn public_name(&self) -> &str {
        let rest = self.url().trim_start_matches("https://");
        match rest.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or(v6),
            None => rest.rsplit_once(':').map_or(rest, |(name, _)| name),
        }
    }

    /// The database's URL.
    pub(crate) fn database_url(&self) -> anyhow::Result<String> {
        if let Some(url) = &self.database.url {
            return Ok(url.clone());
        }
        match &self.database.url_file {
            Some(file) => read_secret(file),
            None => Ok(format!("sqlite:{}", self.server.data.join("fleet.db").display())),
        }
    }
}

/// A file that holds one secret: its first line.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        bail!("{} is empty", path.display());
    }
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("orchestrator.toml");
        std::fs::write(&path, text)?;
        Config::read(&path)
    }

    #[test]
    fn the_smallest_file_has_the_documented_defaults() {
        let config = parse("[server]\nurl = \"https://orchestrator.lab:8443\"\n").unwrap();
        assert_eq!(config.server.listen[0].port(), 8443);
        assert_eq!(config.public_name(), "orchestrator.lab");
        assert_eq!(
            config.database_url().unwrap(),
            "sqlite:/var/lib/selvedge-orchestrator/fleet.db"
        );
        assert_eq!(config.enrollment.certificate_days, 30);
    }

    #[test]
    fn names_are_taken_out_of_urls() {
        for (url, name) in [
            ("https://[::1]:8443/", "::1"),
            ("https://o.example", "o.example"),
            ("https://10.0.0.1:9", "10.0.0.1"),
        ] {
            assert_eq!(
                parse(&format!("[server]\nurl = {url:?}\n"))
                    .unwrap()
                    .public_name(),
                name
            );
        }
    }

    #[test]
    fn bad_values_say_what_would_be_good() {
        let server = "[server]\nurl = \"https://o\"\n";
        for (text, word) in [
            ("[server]\nurl = \"http://o\"\n".to_owned(), "https://"),
            (
                "[server]\nurl = \"https://o/path\"\n".to_owned(),
                "without a path",
            ),
            (format!("{server}cert_file = \"a\"\n"), "key_file"),
            (format!("{server}[database]\nurl = \"mysql://x\"\n"), "postgres"),
            (format!("{server}[link]\nheartbeat = \"0s\"\n"), "heartbeat"),
            (format!("{server}[link]\nhartbeat = \"3s\"\n"), "hartbeat"),
            (
                format!(
                    "{server}[oidc]\nissuer = \"https://i\"\nclient_id = \"c\"\ntenant = \"t\"\n[oidc.roles]\na = \"root\"\n"
                ),
                "viewer",
            ),
        ] {
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn the_database_url_is_not_printed() {
        let config =
            parse("[server]\nurl = \"https://o\"\n[database]\nurl = \"postgres://u:hunter2@db/fleet\"\n")
                .unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
