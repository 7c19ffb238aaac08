//! A fleet in a lab: an orchestrator that also serves the repository, and three sites of one host each. What a person
//! would do with it through `selvedge`, and see of it, as functions.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cli::Cli;
use crate::lab::{Lab, Options};
use crate::layout::host_name;
use crate::orchestrator::TENANT;
use crate::services::git;
use crate::site::{BOOT, Guest, SOON, items};
use crate::tool;
use crate::wait::wait_for;
use crate::{CLIENT, netns};

/// The sites; each is led by the host of the same place in the row, counted from 1.
pub const SITES: [&str; 3] = ["berlin", "lisbon", "oslo"];
/// The repository that the orchestrator serves.
pub const REPOSITORY: &str = "shops";

/// Where a site is, for the page's map: latitude, longitude, time zone, region.
const PLACES: [(&str, &str, &str, &str); 3] = [
    ("52.52", "13.40", "Europe/Berlin", "central"),
    ("38.72", "-9.14", "Europe/Lisbon", "south"),
    ("59.91", "10.75", "Europe/Oslo", "north"),
];

/// A lab with an orchestrator, and a login at it as the owner of the lab's organisation.
#[derive(Debug)]
pub struct Fleet {
    /// The lab around it.
    pub lab: Lab,
    /// The command line of the owner.
    pub cli: Cli,
}

impl Fleet {
    /// Brings up a lab of three hosts that are not started yet, with the demo guest on its image server, and an
    /// orchestrator with nothing but its owner.
    ///
    /// # Errors
    /// When a part cannot be brought up.
    pub fn prepare(options: &Options, image: &Path) -> Result<Self> {
        let options = Options {
            hosts: u8::try_from(SITES.len())?,
            orchestrator: true,
            ..options.clone()
        };
        let mut lab = Lab::up(&options)?;
        lab.publish_image(image)?;
        lab.start_orchestrator()?;
        let cli = lab.found()?;
        Ok(Self { lab, cli })
    }

    /// Makes the repository at the orchestrator, and makes the lab's working copy a clone that may push to it.
    ///
    /// # Errors
    /// When the orchestrator refuses.
    pub fn host_repository(&self) -> Result<()> {
        self.cli.run(["repo", "create", REPOSITORY, "--hosted"])?;
        let credential =
            self.cli
                .json(["repo", "credential", REPOSITORY, "--credential", "lab", "--write"])?;
        let text = |field: &str| {
            credential[field]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("the credential has no {field}: {credential}"))
        };
        let url = text("url")?;
        let address = url
            .strip_prefix("https://")
            .context("the repository is not served by https")?;
        let with_password = format!("https://{}:{}@{address}", text("username")?, text("password")?);
        let site = self.lab.layout.site();
        let authority = self.lab.layout.authority();
        let authority = authority.to_str().context("a path that is not UTF-8")?;
        git(&site, ["remote", "set-url", "origin", &with_password])?;
        git(&site, ["config", "http.sslCAInfo", authority])?;
        // The lab's addresses are not for a proxy.
        git(&site, ["config", "http.proxy", ""]).map(drop)
    }

    /// Registers the three sites.
    ///
    /// # Errors
    /// When the orchestrator refuses.
    pub fn register_sites(&self) -> Result<()> {
        for (name, (lat, lon, zone, region)) in SITES.into_iter().zip(PLACES) {
            let (path, shop) = (format!("sites/{name}"), format!("shop={name}"));
            let region = format!("region={region}");
            let (lat, lon) = (format!("--lat={lat}"), format!("--lon={lon}"));
            self.cli.run([
                "site",
                "create",
                name,
                "--repo",
                REPOSITORY,
                "--path",
                &path,
                "--variable",
                &shop,
                "--label",
                &region,
                &lat,
                &lon,
                "--timezone",
                zone,
            ])?;
        }
        Ok(())
    }

    /// Turns the three hosts on. Each enrols in a way of its own: the first is known beforehand by its MAC address, the
    /// second brings an activation key, the third waits until somebody approves it.
    ///
    /// # Errors
    /// When one cannot be enrolled.
    pub fn enrol(&mut self) -> Result<()> {
        self.expect_first()?;
        self.key_for_second()?;
        for number in 1..=self.lab.hosts {
            self.lab.start_host(number)?;
        }
        self.approve_third()
    }

    /// The first host is known by the MAC address of its first NIC.
    fn expect_first(&self) -> Result<()> {
        let mac = netns::mac(&self.lab.layout, &host_name(1), "vmnic0")?;
        self.cli
            .run(["enroll", "expect", "--site", SITES[0], "--mac", &mac])
            .map(drop)
    }

    /// The second host finds an activation key on its disk.
    fn key_for_second(&self) -> Result<()> {
        let key = self.cli.json(["enroll", "key", "create", "--site", SITES[1]])?;
        let key = key["key"].as_str().context("no activation key was shown")?;
        let file = self.lab.layout.activation_key(&host_name(2));
        fs::write(&file, key).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The third host waits, and is approved.
    fn approve_third(&self) -> Result<()> {
        let (pending, _) = wait_for("a host that waits for approval", SOON, || {
            let list = self.cli.json(["enroll", "pending"])?;
            let names: Vec<String> = items(&list)
                .iter()
                .filter_map(|item| item["id"].as_str().map(str::to_owned))
                .collect();
            Ok(names
                .first()
                .cloned()
                .ok_or_else(|| format!("{} wait", names.len())))
        })?;
        self.cli
            .run(["enroll", "approve", &pending, "--site", SITES[2]])
            .map(drop)
    }

    /// A site as the orchestrator shows it.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn site(&self, name: &str) -> Result<Value> {
        self.cli.json(["site", "get", name])
    }

    /// Waits until sites are healthy at a commit.
    ///
    /// # Errors
    /// When one is not; with the one reason that the orchestrator gives.
    pub fn wait_healthy(&self, sites: &[&str], commit: &str, timeout: Duration) -> Result<Duration> {
        self.wait_sites(sites, timeout, |site| {
            let text = |field: &str| site[field].as_str().unwrap_or_default();
            if text("state") == "healthy" && text("applied").contains(commit) {
                Ok(())
            } else {
                Err(format!(
                    "{} at {}: {}",
                    text("state"),
                    text("applied"),
                    text("reason")
                ))
            }
        })
    }

    /// Waits until sites have applied a commit, healthy or not.
    ///
    /// # Errors
    /// When one has not.
    pub fn wait_applied(&self, sites: &[&str], commit: &str, timeout: Duration) -> Result<Duration> {
        self.wait_sites(sites, timeout, |site| {
            let applied = site["applied"].as_str().unwrap_or_default();
            if applied.contains(commit) {
                Ok(())
            } else {
                Err(format!("it is at {applied:?}"))
            }
        })
    }

    /// Waits until all of these sites are as `accept` wants them.
    ///
    /// # Errors
    /// When one is not.
    pub fn wait_sites(
        &self,
        sites: &[&str],
        timeout: Duration,
        accept: impl Fn(&Value) -> Result<(), String>,
    ) -> Result<Duration> {
        let waited = wait_for(&sites.join(", "), timeout, || {
            for name in sites {
                let site = match self.site(name) {
                    Ok(site) => site,
                    Err(error) => return Ok(Err(format!("{error:#}"))),
                };
                if let Err(because) = accept(&site) {
                    return Ok(Err(format!("{name}: {because}")));
                }
            }
            Ok(Ok(()))
        });
        waited.map(|((), took)| took)
    }

    /// A kubectl that reaches a site through the orchestrator.
    ///
    /// # Errors
    /// When there is no kubeconfig to be had.
    pub fn kubeconfig(&self, site: &str) -> Result<PathBuf> {
        let text = self.cli.run(["kubeconfig", site])?;
        let path = self.lab.layout.state().join(format!("{site}.kubeconfig"));
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// `kubectl` with a site's kubeconfig of [`Fleet::kubeconfig`].
    #[must_use]
    pub fn kubectl(&self, kubeconfig: &Path) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("SELVEDGE_CLIENT_CONFIG", self.cli.config());
        for variable in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(variable);
        }
        command
    }

    /// The address of a site's web server, asked through the orchestrator.
    ///
    /// # Errors
    /// When it does not get to know one.
    pub fn web_address(&self, site: &str) -> Result<IpAddr> {
        let kubeconfig = self.kubeconfig(site)?;
        let (address, _) = wait_for(&format!("the address of {site}'s web server"), BOOT, || {
            let mut get = self.kubectl(&kubeconfig);
            get.args([
                "get",
                "virtualmachine",
                "-n",
                "shop",
                "web",
                "-o",
                "jsonpath={.status.vmIp}",
            ]);
            let output = tool::output(&mut get)?;
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            Ok(text
                .parse()
                .map_err(|_| format!("{text:?} {}", tool::complaint(&output))))
        })?;
        Ok(address)
    }

    /// Waits until a site's web server answers the client, and returns what it says of itself.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_web(&self, address: IpAddr) -> Result<(Guest, Duration)> {
        wait_for(&format!("the guest at {address}"), BOOT, || {
            let page = match self.page(address, "/cgi-bin/info") {
                Ok(page) => page,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            Ok(serde_json::from_str(&page).map_err(|_| page))
        })
    }

    /// What a page of a guest says to the client.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn page(&self, address: IpAddr, path: &str) -> Result<String> {
        let mut curl = self.lab.inside(CLIENT, "curl");
        curl.args([
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "*",
            "--max-time",
            "2",
        ]);
        tool::run(curl.arg(format!("http://{address}{path}")))
    }

    /// Replaces text in a file of the repository's working copy.
    ///
    /// # Errors
    /// When the text is not there.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let path = self.lab.layout.site().join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.contains(from) {
            bail!("{file} does not say {from:?}");
        }
        fs::write(&path, text.replace(from, to)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Where a person's browser finds the page.
    #[must_use]
    pub fn page_url(&self) -> String {
        format!("{}/", self.lab.layout.orchestrator_url())
    }

    /// The path of a site's Kubernetes API below the orchestrator's URL.
    #[must_use]
    pub fn kubernetes_path(site: &str) -> String {
        format!("/k8s/{TENANT}/{site}")
    }
}
