//! Claims of a fleet: an orchestrator enrols three sites, sees and steers them, and is not needed for one to run.

mod browser;

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::time::Instant;

use super::{Claim, Found, basic, claim};
use crate::cli::Cli;
use crate::fleet::{Fleet, REPOSITORY, SITES};
use crate::layout::host_name;
use crate::orchestrator::{OWNER, PASSWORD, TENANT};
use crate::services::git;
use crate::site::{BOOT, SOON, items};
use crate::tool;
use crate::wait::wait_for;

/// How long three guests may take to boot at the same time, on a machine that emulates their processors.
const FLEET_BOOT: Duration = Duration::from_secs(240);

/// The claims in their order: later ones use what earlier ones made.
pub(super) const CLAIMS: [Claim<Fleet>; 18] = [
    basic("the orchestrator serves its page and its API's description", page),
    basic("it hosts a repository that is pushed to", repository),
    basic(
        "three hosts enrol: known by MAC address, by activation key, by approval",
        enrolled,
    ),
    basic("each site becomes healthy at the pushed commit", healthy),
    claim(
        "one that gets out through an HTTP proxy only enrolled, is linked and fetches through it",
        proxied,
    ),
    claim("a site's variables reach its guest", variables),
    claim("a host reports hardware, vSwitch and virtual machines", reported),
    claim(
        "kubectl works at a site through the orchestrator, watches too",
        kubectl,
    ),
    claim("a viewer's kubectl reads no Secret and writes nothing", viewer),
    claim(
        "a virtual machine's serial console comes through the orchestrator",
        console,
    ),
    claim("a pushed commit is at all sites at once", pushed),
    claim("a branch is planned before it is merged", planned),
    claim(
        "a rollout goes in waves, and an offline site neither stalls it nor is forgotten",
        rollout,
    ),
    claim(
        "sites run on when the orchestrator is killed, and come back to it",
        killed,
    ),
    claim(
        "an operator makes a virtual machine of their own with kubectl through the orchestrator",
        browser::own_machine,
    ),
    claim(
        "in a browser a person sees the sites, a host, its use, and a machine's console and screen, and types into it",
        browser::browser,
    ),
    claim(
        "powered off and on in the browser, their machine was started anew; Git's was left alone",
        browser::powered,
    ),
    claim(
        "the audit log has who did what; a revoked host is cut off at once",
        revoked,
    ),
];

fn page(fleet: &mut Fleet) -> Result<Found> {
    let url = fleet.lab.layout.orchestrator_url();
    let page = get(fleet, &format!("{url}/"))?;
    ensure!(page.contains("<script"), "the page is {page:?}");
    let description: Value = serde_json::from_str(&get(fleet, &format!("{url}/api/v1/openapi.json"))?)?;
    let paths = description["paths"].as_object().map_or(0, serde_json::Map::len);
    ensure!(paths > 30, "the description has {paths} paths");
    Ok(Found::words(format!("{paths} paths")))
}

fn get(fleet: &Fleet, url: &str) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--fail",
        "--noproxy",
        "*",
        "--max-time",
        "5",
    ]);
    tool::run(curl.arg("--cacert").arg(fleet.lab.layout.authority()).arg(url))
}

fn repository(fleet: &mut Fleet) -> Result<Found> {
    fleet.host_repository()?;
    let commit = fleet.lab.push("Open the shops")?;
    let ((), took) = wait_for("the commit in the list of commits", SOON, || {
        let list = fleet.cli.json(["repo", "commits", REPOSITORY])?;
        let newest = items(&list).first().cloned().unwrap_or_default();
        Ok(if newest["commit"] == commit.as_str() {
            Ok(())
        } else {
            Err(newest.to_string())
        })
    })?;
    Ok(Found::timed(took))
}

fn enrolled(fleet: &mut Fleet) -> Result<Found> {
    fleet.register_sites()?;
    let begun = Instant::now();
    fleet.enrol()?;
    fleet.wait_sites(&SITES, SOON, |site| match site["hosts"]["online"].as_u64() {
        Some(1) => Ok(()),
        other => Err(format!("{other:?} hosts are online")),
    })?;
    Ok(Found::timed(begun.elapsed()))
}

fn healthy(fleet: &mut Fleet) -> Result<Found> {
    let commit = head(fleet)?;
    fleet.wait_healthy(&SITES, &commit, FLEET_BOOT).map(Found::timed)
}

fn head(fleet: &Fleet) -> Result<String> {
    Ok(git(&fleet.lab.layout.site(), ["rev-parse", "HEAD"])?
        .trim()
        .to_owned())
}

fn proxied(fleet: &mut Fleet) -> Result<Found> {
    let mut direct = fleet.lab.inside(&host_name(3), "curl");
    direct.args(["--silent", "--insecure", "--noproxy", "*", "--max-time", "2"]);
    let output = tool::output(direct.arg(fleet.lab.layout.orchestrator_url()))?;
    ensure!(
        !output.status.success(),
        "it reaches the orchestrator without the proxy"
    );
    let count = fleet.lab.proxied();
    ensure!(count >= 3, "the proxy took {count} connections");
    Ok(Found::words(format!(
        "{count} connections, with a name and a password"
    )))
}

fn variables(fleet: &mut Fleet) -> Result<Found> {
    let mut seen = Vec::new();
    for site in SITES {
        let address = fleet.web_address(site)?;
        let (guest, _) = fleet.wait_web(address)?;
        ensure!(
            guest.hostname == format!("{site}-web"),
            "{site}'s guest calls itself {}",
            guest.hostname
        );
        let hello = fleet.page(address, "/hello.txt")?;
        ensure!(
            hello.trim() == format!("Welcome to the shop in {site}."),
            "{site}'s guest says {hello:?}"
        );
        seen.push(guest.hostname);
    }
    Ok(Found::words(seen.join(", ")))
}

fn reported(fleet: &mut Fleet) -> Result<Found> {
    let host = host_of(fleet, SITES[0])?;
    let ((), took) = wait_for("the host's sections", SOON, || {
        let host = fleet.cli.json(["host", "get", &host])?;
        let sections = host["status"].as_object().cloned().unwrap_or_default();
        let missing: Vec<&str> = [
            "inventory",
            "versions",
            "nic/vmnic0",
            "vswitch/vSwitch1",
            "vm/shop/web",
        ]
        .into_iter()
        .filter(|section| !sections.contains_key(*section))
        .collect();
        Ok(if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("it lacks {}", missing.join(", ")))
        })
    })?;
    Ok(Found::timed(took))
}

/// The host of a site, by its id.
fn host_of(fleet: &Fleet, site: &str) -> Result<String> {
    let list = fleet.cli.json(["host", "list", "--site", site])?;
    let first = items(&list)
        .first()
        .cloned()
        .with_context(|| format!("{site} has no host"))?;
    first["id"]
        .as_str()
        .map(str::to_owned)
        .context("a host without an id")
}

fn kubectl(fleet: &mut Fleet) -> Result<Found> {
    let kubeconfig = fleet.kubeconfig(SITES[1])?;
    let text = tool::run(
        fleet
            .kubectl(&kubeconfig)
            .args(["get", "virtualmachines", "-A", "-o", "name"]),
    )?;
    ensure!(text.contains("/web"), "it has {text:?}");
    // A watch that sees a change: the stream must not be held back anywhere.
    let mut watch = fleet.kubectl(&kubeconfig);
    watch.args(["get", "configmaps", "-n", "default", "--watch-only", "-o", "name"]);
    let watch = Watch::start(&mut watch)?;
    let mut made = 0;
    let begun = Instant::now();
    let ((), _) = wait_for("the watch's line", SOON, || {
        made += 1;
        let name = format!("seen-{made}");
        tool::run(
            fleet
                .kubectl(&kubeconfig)
                .args(["create", "configmap", "-n", "default", &name]),
        )?;
        let text = watch.text()?;
        Ok(if text.contains("configmap/seen-") {
            Ok(())
        } else {
            Err(text)
        })
    })?;
    let took = begun.elapsed();
    tool::run(
        fleet
            .kubectl(&kubeconfig)
            .args(["delete", "configmap", "-n", "default", "--all"]),
    )?;
    Ok(Found::timed(took))
}

/// A command that runs on, with its output in a file; killed when dropped.
struct Watch {
    child: std::process::Child,
    output: std::path::PathBuf,
}

impl Watch {
    fn start(command: &mut Command) -> Result<Self> {
        let output = std::env::temp_dir().join(format!("selvedge-watch-{}", std::process::id()));
        let file = fs::File::create(&output)?;
        let child = command
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        Ok(Self { child, output })
    }

    fn text(&self) -> Result<String> {
        fs::read_to_string(&self.output).context("cannot read what the watch printed")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended by itself; and a file that stays in the temporary directory harms nobody.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.output);
    }
}

fn viewer(fleet: &mut Fleet) -> Result<Found> {
    let token = fleet
        .cli
        .json(["token", "create", "reader", "--role", "viewer"])?;
    let token = token["secret"].as_str().context("no token was shown")?.to_owned();
    // The reader's own login, and the kubeconfig that it gets.
    let state = fleet.lab.layout.state();
    let cli = Cli::new(fleet.lab.programs.cli()?, state.join("reader.toml"));
    let (url, authority) = (fleet.lab.layout.orchestrator_url(), fleet.lab.layout.authority());
    let authority = authority.to_str().context("a path that is not UTF-8")?;
    cli.run([
        "login",
        &url,
        "--tenant",
        TENANT,
        "--token",
        &token,
        "--ca-file",
        authority,
    ])?;
    let reader = state.join("reader.kubeconfig");
    fs::write(&reader, cli.run(["kubeconfig", SITES[1]])?)?;
    tool::run(fleet.kubectl(&reader).args(["get", "virtualmachines", "-A"]))?;
    for attempt in [
        ["get", "secrets", "-A"].as_slice(),
        &["create", "configmap", "-n", "default", "mine"],
        &["delete", "virtualmachine", "-n", "shop", "web"],
    ] {
        let output = tool::output(fleet.kubectl(&reader).args(attempt))?;
        let words = tool::complaint(&output);
        ensure!(
            !output.status.success(),
            "kubectl {} was allowed",
            attempt.join(" ")
        );
        // kubectl leaves the reason out of some of its messages.
        ensure!(
            words.contains("Forbidden") || words.contains("needs an operator"),
            "kubectl {} failed otherwise: {words}",
            attempt.join(" ")
        );
    }
    Ok(Found::words("Secrets, create and delete are forbidden"))
}

fn console(fleet: &mut Fleet) -> Result<Found> {
    // `script` gives it a terminal, as a person has one.
    let line = format!(
        "{} vm console --site {} shop/web",
        fleet.cli.command().get_program().to_string_lossy(),
        SITES[0]
    );
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--flush", "--return", "--command", &line, "/dev/null"])
        .env("SELVEDGE_CLIENT_CONFIG", fleet.cli.config());
    let mut child = script
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .context("cannot run script")?;
    let begun = Instant::now();
    let seen = Typist::new(&mut child)?.ask("hostname", "berlin-web", Duration::from_secs(30));
    // Either it ended by itself, or it is to end now.
    let _ = child.kill();
    let _ = child.wait();
    seen.map(|()| Found::timed(begun.elapsed()))
}

/// Types a command at a console until it answers.
struct Typist {
    keys: std::process::ChildStdin,
    screen: std::sync::Arc<std::sync::Mutex<String>>,
}

impl Typist {
    fn new(child: &mut std::process::Child) -> Result<Self> {
        let keys = child.stdin.take().context("the console has no input")?;
        let mut output = child.stdout.take().context("the console has no output")?;
        let screen = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
        let shown = screen.clone();
        // Ends with the console.
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count) = std::io::Read::read(&mut output, &mut bytes) {
                if count == 0 {
                    break;
                }
                if let Ok(mut screen) = shown.lock() {
                    screen.push_str(&String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()));
                }
            }
        });
        Ok(Self { keys, screen })
    }

    fn ask(&mut self, command: &str, answer: &str, timeout: Duration) -> Result<()> {
        wait_for(&format!("{answer:?} on the console"), timeout, || {
            std::io::Write::write_all(&mut self.keys, format!("{command}\r").as_bytes())
                .context("the console took no key")?;
            let screen = self
                .screen
                .lock()
                .map(|screen| screen.clone())
                .unwrap_or_default();
            Ok(if screen.contains(answer) {
                Ok(())
            } else {
                Err(screen)
            })
        })
        .map(drop)
    }
}

fn pushed(fleet: &mut Fleet) -> Result<Found> {
    fleet.edit("base/web.yaml", "Welcome", "Good day")?;
    let begun = Instant::now();
    let commit = fleet.lab.push("Greet otherwise")?;
    fleet.wait_applied(&SITES, &commit, SOON)?;
    let took = begun.elapsed();
    fleet.wait_healthy(&SITES, &commit, SOON)?;
    Ok(Found::timed(took))
}

fn planned(fleet: &mut Fleet) -> Result<Found> {
    let site = fleet.lab.layout.site();
    git(&site, ["checkout", "--quiet", "-b", "close"])?;
    fleet.edit("base/web.yaml", "powerState: poweredOn", "powerState: poweredOff")?;
    git(&site, ["commit", "--quiet", "--all", "-m", "Close the shops"])?;
    git(&site, ["push", "--quiet", "origin", "close"])?;
    let begun = Instant::now();
    let output = fleet
        .cli
        .output(["plan", "--repo", REPOSITORY, "--ref", "close", "-o", "json"])?;
    let took = begun.elapsed();
    git(&site, ["checkout", "--quiet", "main"])?;
    let plan: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no plan: {}", tool::complaint(&output)))?;
    ensure!(plan["state"] == "done", "the plan is {plan}");
    ensure!(
        plan["totals"]["changed"] == 3,
        "of the sites there change {}",
        plan["totals"]
    );
    let text = plan["sites"].to_string();
    ensure!(
        text.contains("powerState") && text.contains("poweredOff"),
        "the plan is {text}"
    );
    let applied = fleet.site(SITES[0])?;
    ensure!(
        applied["applied"].as_str() != plan["to"].as_str(),
        "the plan was applied"
    );
    Ok(Found::words(format!("{}", plan["totals"])).with_time(took))
}

const POLICY: &str = r#"waves:
  - {name: canary, selector: region=central, batch: all}
  - {name: others, selector: "", batch: all, approval: true}
gate: {healthyFor: 2s, awayAfter: 3s}
failureBudget: "1"
"#;

fn rollout(fleet: &mut Fleet) -> Result<Found> {
    let file = fleet.lab.layout.state().join("policy.yaml");
    fs::write(&file, POLICY)?;
    fleet.cli.run([
        "policy",
        "create",
        "canary",
        file.to_str().context("a path that is not UTF-8")?,
    ])?;
    for site in SITES {
        fleet.cli.run(["site", "edit", site, "--policy", "canary"])?;
    }
    fleet.lab.power_off(3)?;
    fleet.wait_sites(&SITES[2..], BOOT, |site| match site["state"].as_str() {
        Some("offline" | "stale") => Ok(()),
        other => Err(format!("it is {other:?}")),
    })?;
    let before = head(fleet)?;
    fleet.edit("base/web.yaml", "Good day", "Good evening")?;
    let commit = fleet.lab.push("Greet in the evening")?;
    fleet.wait_healthy(&SITES[..1], &commit, SOON)?;
    let id = newest_rollout(fleet, &commit, "awaitingApproval")?;
    let lisbon = fleet.site(SITES[1])?;
    ensure!(
        lisbon["applied"]
            .as_str()
            .is_some_and(|applied| applied.contains(&before)),
        "lisbon went on to {} without approval",
        lisbon["applied"]
    );
    fleet.cli.run(["rollout", "approve", &id])?;
    fleet.wait_healthy(&SITES[1..2], &commit, SOON)?;
    newest_rollout(fleet, &commit, "succeeded")?;
    let begun = Instant::now();
    fleet.lab.start_host(3)?;
    fleet.wait_applied(&SITES[2..], &commit, BOOT)?;
    let caught_up = begun.elapsed();
    fleet.wait_healthy(&SITES, &commit, FLEET_BOOT)?;
    Ok(Found::words(format!(
        "oslo was away, and caught up {:.1} s after its power came back",
        caught_up.as_secs_f64()
    )))
}

/// The rollout of a commit, once it is in a state.
fn newest_rollout(fleet: &Fleet, commit: &str, state: &str) -> Result<String> {
    let (id, _) = wait_for(&format!("a rollout that is {state}"), BOOT, || {
        let list = fleet.cli.json(["rollout", "list"])?;
        let found = items(&list)
            .into_iter()
            .find(|rollout| rollout["commit"].as_str().is_some_and(|of| of.contains(commit)));
        let Some(found) = found else {
            return Ok(Err(format!("there is none of {commit}")));
        };
        Ok(match found["id"].as_str() {
            Some(id) if found["state"] == state => Ok(id.to_owned()),
            _ => Err(format!("it is {}: {}", found["state"], found["reason"])),
        })
    })?;
    Ok(id)
}

fn killed(fleet: &mut Fleet) -> Result<Found> {
    let address = fleet.web_address(SITES[0])?;
    fleet.lab.kill_orchestrator()?;
    let mut commit = Command::new("kubectl");
    commit
        .arg("--kubeconfig")
        .arg(fleet.lab.layout.kubeconfig(&host_name(1), "admin"));
    commit.args(["get", "virtualmachines", "-A", "-o", "name"]);
    tool::run(&mut commit)?;
    fleet.wait_web(address)?;
    fleet.lab.start_orchestrator()?;
    let begun = Instant::now();
    fleet.wait_sites(&SITES, BOOT, |site| match site["hosts"]["online"].as_u64() {
        Some(1) => Ok(()),
        other => Err(format!("{other:?} hosts are online")),
    })?;
    let back = begun.elapsed();
    let commit = head(fleet)?;
    fleet.wait_healthy(&SITES, &commit, SOON)?;
    Ok(Found::words(format!(
        "all back after {:.1} s",
        back.as_secs_f64()
    )))
}

fn revoked(fleet: &mut Fleet) -> Result<Found> {
    let host = host_of(fleet, SITES[2])?;
    fleet.cli.run(["host", "revoke", &host])?;
    let begun = Instant::now();
    wait_for("the end of its link", SOON, || {
        let host = fleet.cli.json(["host", "get", &host])?;
        let (phase, link) = (&host["phase"], &host["connection"]);
        Ok(if phase == "revoked" && link != "online" {
            Ok(())
        } else {
            Err(format!("{phase}, {link}"))
        })
    })?;
    let took = begun.elapsed();
    let entries = items(&fleet.cli.json(["audit"])?);
    let text = Value::from(entries.clone()).to_string();
    for action in ["site.create", "host.revoke"] {
        let found = entries
            .iter()
            .find(|entry| entry["action"] == action)
            .with_context(|| format!("no {action} in the audit log"))?;
        ensure!(found["actor"] == OWNER, "{action} was done by {}", found["actor"]);
    }
    ensure!(!text.contains(PASSWORD), "the audit log has a password");
    Ok(Found::words(format!("{} entries", entries.len())).with_time(took))
}
