//! `host.toml`: who this host is and where its site repository is. Everything else comes from Git.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use serde::Deserialize;

/// The whole file. Unknown keys are refused: a typing error here must not wait for a visit to be noticed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) host: Host,
    #[serde(default)]
    pub(crate) paths: Paths,
    #[serde(default)]
    pub(crate) api: Api,
    pub(crate) source: Option<Source>,
    pub(crate) orchestrator: Option<Orchestrator>,
    #[serde(default)]
    pub(crate) network: Network,
    #[serde(default)]
    pub(crate) images: Images,
    #[serde(default)]
    pub(crate) vm: Vm,
    pub(crate) webhook: Option<Webhook>,
    #[serde(default)]
    pub(crate) log: Log,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Host {
    /// A DNS label.
    pub(crate) name: String,
    /// For machines whose firmware has none, or a wrong one.
    pub(crate) serial: Option<String>,
    pub(crate) uuid: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Paths {
    /// What must outlive a power cut.
    pub(crate) state: PathBuf,
    /// Sockets and pids; empty after a reboot.
    pub(crate) run: PathBuf,
    /// Where kubeconfigs and certificates are written.
    pub(crate) config: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            state: "/var/lib/selvedge".into(),
            run: "/run/selvedge".into(),
            config: "/etc/selvedge".into(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) listen: Vec<SocketAddr>,
    /// More names for the serving certificate.
    pub(crate) names: Vec<String>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 6443))],
            names: Vec::new(),
        }
    }
}

/// The site repository. At most one of `branch`, `tag`, `semver`, `commit`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Source {
    pub(crate) url: String,
    pub(crate) branch: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) semver: Option<String>,
    pub(crate) commit: Option<String>,
    #[serde(default = "here")]
    pub(crate) path: String,
    /// How often to look, as `30s` or `5m`.
    #[serde(default = "minute")]
    pub(crate) interval: String,
    pub(crate) username: Option<String>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) bearer_token_file: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) identity_file: Option<PathBuf>,
    pub(crate) known_hosts_file: Option<PathBuf>,
}

/// The orchestrator, if there is one. Everything works without.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Orchestrator {
    /// `https://orchestrator.example:8443`
    pub(crate) url: String,
    /// The authority of the orchestrator's certificate, in place of the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// The key that lets the host in at once. Used up by the first enrolment.
    pub(crate) activation_key: Option<String>,
    pub(crate) activation_key_file: Option<PathBuf>,
    /// The tenant to ask when neither a key nor the machine's numbers say whose it is.
    pub(crate) tenant: Option<String>,
    /// An HTTP proxy; else `HTTPS_PROXY` counts.
    pub(crate) proxy: Option<String>,
    /// What keeps the host's key, if it has none yet: `auto`, `tpm` or `file`.
    #[serde(default)]
    pub(crate) key: identity::key::Place,
    /// The kernel's TPM device, or the socket of a software TPM.
    #[serde(default = "tpm_device")]
    pub(crate) tpm_device: PathBuf,
    /// How often the host tells how much it uses, as `5m`.
    #[serde(default = "five_minutes")]
    pub(crate) usage: String,
}

impl std::fmt::Debug for Orchestrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Orchestrator")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

impl Orchestrator {
    fn check(&self) -> anyhow::Result<()> {
        let rest = self.url.strip_prefix("https://").unwrap_or_default();
        let address = rest.trim_end_matches('/');
        if address.is_empty() || address.contains(['/', '@', '?', '#', ' ']) {
            bail!(
                "orchestrator.url: {:?} is not like https://orchestrator.example:8443",
                self.url
            );
        }
        if self.activation_key.is_some() && self.activation_key_file.is_some() {
            bail!("orchestrator: give at most one of activation_key and activation_key_file");
        }
        self.usage().map(drop)
    }

    /// How often the host tells how much it uses.
    pub(crate) fn usage(&self) -> anyhow::Result<Duration> {
        let usage = kinds::duration::parse(&self.usage).context("orchestrator.usage")?;
        if !(1..=3600).contains(&usage.as_secs()) {
            bail!("orchestrator.usage: {usage:?} is not between 1 s and 1 h");
        }
        Ok(usage)
    }

    /// The activation key, if one was given.
    pub(crate) fn activation(&self) -> anyhow::Result<Option<String>> {
        let text = match (&self.activation_key, &self.activation_key_file) {
            (Some(key), _) => key.clone(),
            (None, Some(file)) => std::fs::read_to_string(file).with_context(|| {
                format!("orchestrator.activation_key_file: can't read {}", file.display())
            })?,
            (None, None) => return Ok(None),
        };
        Ok(Some(text.trim().to_owned()).filter(|key| !key.is_empty()))
    }
}

fn here() -> String {
    "./".into()
}

fn minute() -> String {
    "1m".into()
}

fn tpm_device() -> PathBuf {
    identity::key::DEVICE.into()
}

fn five_minutes() -> String {
    "5m".into()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    /// The Open vSwitch database's socket.
    pub(crate) ovs_db: PathBuf,
    /// Where Open vSwitch keeps its control sockets.
    pub(crate) ovs_rundir: PathBuf,
    /// `system` (kernel) or `netdev` (userspace).
    pub(crate) datapath: String,
    /// Whether the base layer takes the physical NICs and the host's address into vSwitch0.
    pub(crate) manage_nics: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            ovs_db: "/run/openvswitch/db.sock".into(),
            ovs_rundir: "/run/openvswitch".into(),
            datapath: "system".into(),
            manage_nics: true,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Images {
    /// Base URLs or folders where bare image names are looked up.
    pub(crate) libraries: Vec<String>,
    /// A certificate authority to trust for image servers, beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// Images that no virtual machine uses are kept up to this size altogether.
    pub(crate) keep_gib: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            libraries: Vec::new(),
            ca_file: None,
            keep_gib: 20,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Vm {
    /// `auto` (KVM when a probe guest runs, else TCG), `kvm` or `tcg`.
    pub(crate) accelerator: String,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            accelerator: "auto".into(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Webhook {
    /// `POST /hook/source` here makes the host look at its repositories at once.
    pub(crate) listen: SocketAddr,
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
        let name = &self.host.name;
        let label = !name.is_empty()
            && name.len() <= 63
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !label {
            bail!(
                "host.name: {name:?} is no DNS label: use lower-case letters, digits and inner hyphens, at most 63"
            );
        }
        if !matches!(self.network.datapath.as_str(), "system" | "netdev") {
            bail!(
                "network.datapath: {:?} is neither \"system\" nor \"netdev\"",
                self.network.datapath
            );
        }
        if !matches!(self.vm.accelerator.as_str(), "auto" | "kvm" | "tcg") {
            bail!(
                "vm.accelerator: {:?} is none of \"auto\", \"kvm\", \"tcg\"",
                self.vm.accelerator
            );
        }
        if let Some(source) = &self.source {
            let refs = [&source.branch, &source.tag, &source.semver, &source.commit];
            if refs.iter().filter(|r| r.is_some()).count() > 1 {
                bail!("source: give at most one of branch, tag, semver and commit");
            }
            gitops::check_url(&source.url).map_err(|why| anyhow!("source.url: {why}"))?;
            kinds::duration::parse(&source.interval).context("source.interval")?;
            if source.path.split('/').any(|part| part == "..") {
                bail!("source.path: {:?} leaves the repository", source.path);
            }
        }
        if let Some(orchestrator) = &self.orchestrator {
            orchestrator.check()?;
        }
        for library in &self.images.libraries {
            image::Library::parse(library).context("images.libraries")?;
        }
        Ok(())
    }

    /// Opens the files that it names, and the TPM that it demands.
    pub(crate) fn check_files(&self) -> anyhow::Result<()> {
        if let Some(orchestrator) = &self.orchestrator
            && orchestrator.key == identity::key::Place::Tpm
        {
            identity::key::TpmKey::probe(&orchestrator.tpm_device).context("orchestrator.key")?;
        }
        let of_source = self.source.iter().flat_map(|source| {
            [
                ("source.password_file", &source.password_file),
                ("source.bearer_token_file", &source.bearer_token_file),
                ("source.ca_file", &source.ca_file),
                ("source.identity_file", &source.identity_file),
                ("source.known_hosts_file", &source.known_hosts_file),
            ]
        });
        // The activation key is not looked for: it may be gone once it was used.
        let of_orchestrator = self
            .orchestrator
            .iter()
            .map(|orchestrator| ("orchestrator.ca_file", &orchestrator.ca_file));
        let others = [("images.ca_file", &self.images.ca_file)];
        for (key, file) in of_source.chain(of_orchestrator).chain(others) {
            if let Some(file) = file {
                std::fs::File::open(file).with_context(|| format!("{key}: can't read {}", file.display()))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("host.toml");
        std::fs::write(&path, text)?;
        Config::read(&path)
    }

    #[test]
    fn the_smallest_file_has_the_documented_defaults() {
        let config = parse("[host]\nname = \"host1\"\n").unwrap();
        assert_eq!(config.paths.state, Path::new("/var/lib/selvedge"));
        assert_eq!(config.api.listen[0].port(), 6443);
        assert_eq!(config.network.datapath, "system");
        assert!(config.network.manage_nics);
        assert!(config.source.is_none());
    }

    #[test]
    fn a_typing_error_is_named_with_its_line() {
        let error = format!(
            "{:#}",
            parse("[host]\nname = \"host1\"\n[vm]\nacelerator = \"kvm\"\n").unwrap_err()
        );
        assert!(
            error.contains("host.toml") && error.contains("line 4") && error.contains("acelerator"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_its_key() {
        let config = parse(
            "[host]\nname = \"h\"\n[source]\nurl = \"https://u/r\"\npassword_file = \"/nowhere/password\"\n",
        )
        .unwrap();
        let error = format!("{:#}", config.check_files().unwrap_err());
        assert!(
            error.contains("source.password_file") && error.contains("/nowhere/password"),
            "{error}"
        );
    }

    #[test]
    fn a_tpm_that_is_demanded_must_be_there() {
        let with = |key: &str| {
            let text = format!(
                "[host]\nname = \"h\"\n[orchestrator]\nurl = \"https://o\"\n{key}tpm_device = \"/nowhere/tpm\"\n"
            );
            parse(&text).unwrap().check_files()
        };
        with("").unwrap();
        with("key = \"file\"\n").unwrap();
        let error = format!("{:#}", with("key = \"tpm\"\n").unwrap_err());
        assert!(
            error.contains("orchestrator.key") && error.contains("no TPM at /nowhere/tpm"),
            "{error}"
        );
    }

    #[test]
    fn bad_values_say_what_would_be_good() {
        for (text, word) in [
            ("[host]\nname = \"Host 1\"\n", "DNS label"),
            (
                "[host]\nname = \"h\"\n[network]\ndatapath = \"kernel\"\n",
                "netdev",
            ),
            ("[host]\nname = \"h\"\n[vm]\naccelerator = \"xen\"\n", "tcg"),
            (
                "[host]\nname = \"h\"\n[source]\nurl = \"u\"\nbranch = \"a\"\ntag = \"b\"\n",
                "at most one",
            ),
            ("[host]\nname = \"h\"\n[source]\nurl = \"ftp://u\"\n", "https://"),
            (
                "[host]\nname = \"h\"\n[source]\nurl = \"https://u/r\"\ninterval = \"often\"\n",
                "1h30m",
            ),
            (
                "[host]\nname = \"h\"\n[source]\nurl = \"https://u/r\"\npath = \"../other\"\n",
                "source.path",
            ),
            (
                "[host]\nname = \"h\"\n[orchestrator]\nurl = \"http://o:8443\"\n",
                "orchestrator.url",
            ),
            (
                "[host]\nname = \"h\"\n[orchestrator]\nurl = \"https://o/api\"\n",
                "orchestrator.url",
            ),
            (
                "[host]\nname = \"h\"\n[orchestrator]\nurl = \"https://o\"\nactivation_key = \"a\"\nactivation_key_file = \"b\"\n",
                "at most one",
            ),
            (
                "[host]\nname = \"h\"\n[orchestrator]\nurl = \"https://o\"\nkey = \"usb\"\n",
                "`auto`, `tpm`, `file`",
            ),
            (
                "[host]\nname = \"h\"\n[images]\nlibraries = [\"golden\"]\n",
                "images.libraries",
            ),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
