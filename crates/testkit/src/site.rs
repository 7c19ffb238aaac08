//! The example site on one host of a lab: what a person would do with it, and see of it, as functions.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::kubectl::{Kubectl, ready};
use crate::lab::{Lab, Options};
use crate::layout::{Network, host_name};
use crate::process::Process;
use crate::wait::wait_for;
use crate::{CLIENT, ovs, tool};

/// How long the host may take to report what it has done, on a machine that emulates the guest's processor.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a guest may take to boot and answer there.
pub const BOOT: Duration = Duration::from_secs(120);

/// What a site is made from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The folder with the example site's repository.
    pub site: PathBuf,
    /// The demo guest.
    pub image: PathBuf,
}

impl Sources {
    /// The example site of this repository, and the demo guest that `SELVEDGE_DEMO_GUEST` names; else one that is built
    /// now, if it has to be.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn of_this_repository() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let image = match std::env::var_os("SELVEDGE_DEMO_GUEST") {
            Some(given) => given.into(),
            None => {
                let images = std::env::temp_dir().join("selvedge-images");
                let build = root.join("images/demo-guest/build");
                tool::run(Command::new(build).arg(&images))?;
                images.join("demo-guest.ova")
            }
        };
        Ok(Self {
            site: root.join("examples/site"),
            image,
        })
    }
}

/// One host, one repository.
#[derive(Debug)]
pub struct Site {
    /// The lab around it.
    pub lab: Lab,
    /// The host's API, as its administrator.
    pub kubectl: Kubectl,
}

/// What the demo guest says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Guest {
    /// Its host name.
    pub hostname: String,
    /// The instance id of its seed.
    pub instance_id: String,
    /// How often it was started from its disk.
    pub boots: u32,
    /// How long it runs.
    pub uptime_seconds: u64,
}

impl Site {
    /// Brings up a lab with one host that is not started yet, and an image server that has the demo guest.
    ///
    /// # Errors
    /// When the lab cannot be brought up.
    pub fn prepare(options: &Options, sources: &Sources) -> Result<Self> {
        let lab = Lab::up(options)?;
        lab.publish_image(&sources.image)?;
        lab.copy_site(&sources.site)?;
        let kubectl = Kubectl::admin(&lab, 1);
        Ok(Self { lab, kubectl })
    }

    /// [`Site::prepare`], and the host has the example site.
    ///
    /// # Errors
    /// When it does not come so far.
    pub fn open(options: &Options, sources: &Sources) -> Result<Self> {
        let mut site = Self::prepare(options, sources)?;
        site.lab.start_host(1)?;
        site.wait_api()?;
        let commit = site.lab.push("Open the shop")?;
        site.wait_applied(&commit)?;
        Ok(site)
    }

    /// Waits until the host's API says that it is ready.
    ///
    /// # Errors
    /// When it does not; with the daemon's last words.
    pub fn wait_api(&self) -> Result<Duration> {
        let config = self.lab.layout.kubeconfig(&host_name(1), "admin");
        let waited = wait_for("the host's API", SOON, || {
            if self.lab.process(&host_name(1), "selvedge-host").is_none() {
                bail!("the daemon ended: {}", self.last_words());
            }
            if !config.exists() {
                return Ok(Err("no kubeconfig yet".to_owned()));
            }
            let output = self.kubectl.output(["get", "--raw", "/readyz"])?;
            Ok(if output.status.success() {
                Ok(())
            } else {
                Err(tool::complaint(&output))
            })
        });
        waited.map(|((), took)| took)
    }

    /// The end of the daemon's log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(self.lab.log(&host_name(1), "selvedge-host")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }

    /// Waits until the host has applied a commit.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_applied(&self, commit: &str) -> Result<Duration> {
        let applied = wait_for("the commit on the host", SOON, || {
            let Ok(list) = self.kubectl.get(["kustomizations", "-A"]) else {
                return Ok(Err("the API does not answer".to_owned()));
            };
            let items = items(&list);
            let done = items.iter().any(|item| {
                item["status"]["lastAppliedRevision"]
                    .as_str()
                    .is_some_and(|revision| revision.contains(commit))
            });
            Ok(if done {
                Ok(())
            } else {
                Err(items.iter().map(not_ready).collect::<Vec<_>>().join("; "))
            })
        });
        applied.map(|((), took)| took)
    }

    /// Waits until all objects of these kinds, of which there is one at least, are ready.
    ///
    /// # Errors
    /// When one is not; with what it says.
    pub fn wait_ready(&self, kubectl: &Kubectl, kinds: &str, timeout: Duration) -> Result<Duration> {
        let waited = wait_for(kinds, timeout, || {
            let list = match kubectl.get([kinds, "--all-namespaces"]) {
                Ok(list) => list,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            let items = items(&list);
            let waiting: Vec<String> = items.iter().filter_map(|item| ready(item).err()).collect();
            let all = kinds
                .split(',')
                .all(|kind| items.iter().any(|item| is_of(item, kind)));
            Ok(match (all, waiting.is_empty()) {
                (true, true) => Ok(()),
                (false, _) => Err(format!("of {kinds} there are only {}", items.len())),
                (_, false) => Err(waiting.join("; ")),
            })
        });
        waited.map(|((), took)| took)
    }

    /// Asks the host to look at its repositories now, as `flux reconcile` does.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn request(&self, kind: &str) -> Result<()> {
        let list = self.kubectl.get([kind, "--all-namespaces"])?;
        for item in items(&list) {
            let text = |field: &str| item["metadata"][field].as_str().unwrap_or_default().to_owned();
            // Any new value is a request; the version changes with each.
            let request = format!("reconcile.fluxcd.io/requestedAt={}", text("resourceVersion"));
            self.kubectl.run([
                "annotate",
                kind,
                "-n",
                &text("namespace"),
                &text("name"),
                "--overwrite",
                &request,
            ])?;
        }
        Ok(())
    }

    /// Waits until some object of a kind is not ready, and says all of these words.
    ///
    /// # Errors
    /// When none does.
    pub fn wait_complaint(&self, kind: &str, words: &[&str]) -> Result<String> {
        let said = wait_for(&format!("{kind} that says {}", words.join(", ")), SOON, || {
            let list = self.kubectl.get([kind, "--all-namespaces"])?;
            let all: Vec<String> = items(&list).iter().filter_map(complaint).collect();
            let found = all
                .iter()
                .find(|text| words.iter().all(|word| text.contains(word)));
            Ok(found.cloned().ok_or_else(|| all.join("; ")))
        });
        said.map(|(text, _)| text)
    }

    /// A virtual machine's address, as the host's API has it.
    ///
    /// # Errors
    /// When it does not get to know one.
    pub fn address(&self, namespace: &str, name: &str) -> Result<String> {
        let found = wait_for(&format!("the address of {namespace}/{name}"), BOOT, || {
            let vm = match self.kubectl.get(["virtualmachine", "-n", namespace, name]) {
                Ok(vm) => vm,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            let address = vm["status"]["vmIp"]
                .as_str()
                .filter(|address| !address.is_empty())
                .map(str::to_owned);
            Ok(address.ok_or_else(|| format!("status: {}", vm["status"])))
        });
        Ok(found?.0)
    }

    /// What a page of a guest says to the client.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn page(&self, address: &str, path: &str) -> Result<String> {
        self.page_within(address, path, Duration::from_secs(2))
    }

    /// [`Site::page`] of a page that takes its time.
    ///
    /// # Errors
    /// When the guest does not answer.
    pub fn page_within(&self, address: &str, path: &str, limit: Duration) -> Result<String> {
        let mut curl = self.lab.inside(CLIENT, "curl");
        curl.args(["--silent", "--show-error", "--fail", "--noproxy", "*"]);
        curl.arg("--max-time").arg(limit.as_secs().to_string());
        tool::run(curl.arg(format!("http://{address}{path}")))
    }

    /// Waits until a guest answers the client, and returns what it says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn wait_guest(
        &self,
        address: &str,
        accept: impl Fn(&Guest) -> Result<(), String>,
    ) -> Result<(Guest, Duration)> {
        wait_for(&format!("the guest at {address}"), BOOT, || {
            let page = match self.page(address, "/cgi-bin/info") {
                Ok(page) => page,
                Err(error) => return Ok(Err(format!("{error:#}"))),
            };
            let guest: Guest = serde_json::from_str(&page)
                .with_context(|| format!("the guest at {address} says {page:?}"))?;
            Ok(accept(&guest).map(|()| guest))
        })
    }

    /// The QEMU processes of a virtual machine.
    #[must_use]
    pub fn qemu(&self, namespace: &str, name: &str) -> Vec<Process> {
        self.lab.qemu(1, namespace, name)
    }

    /// The ports of virtual machines on a vSwitch, by the names of their taps.
    ///
    /// # Errors
    /// When Open vSwitch complains.
    pub fn guest_ports(&self) -> Result<Vec<(String, String)>> {
        let vsctl =
            |arguments: &[&str]| ovs::vsctl(&self.lab.layout, &host_name(1), arguments.iter().copied());
        let mut found = Vec::new();
        for bridge in vsctl(&["list-br"])?.lines() {
            for port in vsctl(&["list-ports", bridge])?.lines() {
                let is_tap = port
                    .strip_prefix("sv")
                    .and_then(|rest| rest.split_once('-'))
                    .is_some_and(|(id, index)| {
                        id.len() == 10
                            && id.chars().all(|c| c.is_ascii_hexdigit())
                            && index.parse::<u8>().is_ok()
                    });
                if is_tap {
                    found.push((bridge.to_owned(), port.to_owned()));
                }
            }
        }
        Ok(found)
    }

    /// A file of the site's folder in the working copy.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.lab.layout.site().join("shop-001").join(name)
    }

    /// Replaces text in a file of the site's folder.
    ///
    /// # Errors
    /// When the text is not there.
    pub fn edit(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let path = self.file(name);
        let text = read(&path)?;
        if !text.contains(from) {
            bail!("{name} does not say {from:?}");
        }
        fs::write(&path, text.replace(from, to)).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether there is an Event with this reason about an object.
    ///
    /// # Errors
    /// When the API does not answer.
    pub fn has_event(&self, about: &str, words: &[&str]) -> Result<bool> {
        let list = self.kubectl.get(["events", "--all-namespaces"])?;
        Ok(items(&list).iter().any(|event| {
            let object = event
                .get("involvedObject")
                .or_else(|| event.get("regarding"))
                .unwrap_or(&Value::Null);
            let text = event.to_string().to_lowercase();
            object["name"] == about && words.iter().all(|word| text.contains(&word.to_lowercase()))
        }))
    }

    /// The network on the physical switch that carries a port group of this VLAN.
    #[must_use]
    pub fn in_network(&self, network: Network, address: &str) -> bool {
        let prefix = self.lab.layout.address(network, 0);
        prefix
            .rsplit_once('.')
            .is_some_and(|(prefix, _)| address.starts_with(&format!("{prefix}.")))
    }
}

/// The items of a list, as Kubernetes or `selvedge` prints it.
#[must_use]
pub fn items(list: &Value) -> Vec<Value> {
    list.as_array()
        .or_else(|| list["items"].as_array())
        .cloned()
        .unwrap_or_default()
}

fn not_ready(item: &Value) -> String {
    match ready(item) {
        Ok(()) => format!("at {}", item["status"]["lastAppliedRevision"]),
        Err(because) => because,
    }
}

/// All that an object says is wrong with it.
fn complaint(item: &Value) -> Option<String> {
    let conditions = item["status"]["conditions"].as_array()?;
    let bad: Vec<String> = conditions
        .iter()
        .filter(|condition| condition["status"] == "False")
        .map(|condition| {
            format!(
                "{} {}: {}",
                condition["type"], condition["reason"], condition["message"]
            )
        })
        .collect();
    (!bad.is_empty()).then(|| format!("{}: {}", item["metadata"]["name"], bad.join(", ")))
}

/// Whether an object is of the kind that a plural, lower-case name means.
fn is_of(item: &Value, plural: &str) -> bool {
    item["kind"]
        .as_str()
        .is_some_and(|kind| format!("{}s", kind.to_lowercase()) == plural)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
