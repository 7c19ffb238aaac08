//! What `make demo` shows: three sites enrol at an orchestrator and make themselves what their folders in Git say.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::fleet::{Fleet, REPOSITORY, SITES};
use crate::lab::Options;
use crate::layout::host_name;
use crate::orchestrator::{OWNER, PASSWORD};
use crate::site::BOOT;

/// Brings up the lab with the example fleet, shows what happens with its times, and leaves it running.
///
/// # Errors
/// When a step fails; the lab is removed then.
pub fn run(options: &Options, repository: &Path, image: &Path) -> Result<()> {
    let start = Instant::now();
    let mut fleet = step(
        "a lab: physical switch, DHCP, image server, three hosts; an orchestrator and its first owner",
        || Fleet::prepare(options, image),
    )?;
    println!(
        "        watch it in a browser: {}  (user {OWNER}, password {PASSWORD})",
        fleet.page_url()
    );
    let commit = step(
        "a repository at the orchestrator; the fleet's folder is pushed to it",
        || {
            fleet.host_repository()?;
            fleet.lab.copy_site(repository)?;
            fleet.lab.push("Open the shops")
        },
    )?;
    step("three sites are registered: berlin, lisbon, oslo", || {
        fleet.register_sites()
    })?;
    step(
        "the hosts are turned on and enrol: by MAC address, by activation key, by approval",
        || fleet.enrol(),
    )?;
    step("each has pulled its site's folder and applied it", || {
        fleet.wait_applied(&SITES, &commit, BOOT)
    })?;
    step(
        "networks and virtual machines are as asked for: all sites healthy",
        || fleet.wait_healthy(&SITES, &commit, FLEET_BOOT),
    )?;
    let address = step(
        "berlin's guest has an address, seen through the orchestrator",
        || fleet.web_address(SITES[0]),
    )?;
    let guest = step("the guest answers a client on the port group's network", || {
        fleet.wait_web(address)
    })?;
    println!(
        "\nUp in {:.1} s. The guest at {address} calls itself {}, as berlin's variables say.\n",
        start.elapsed().as_secs_f64(),
        guest.0.hostname
    );
    println!("{}", fleet.cli.run(["site", "list"])?);
    println!("{}", fleet.cli.run(["host", "list"])?);
    println!("{}", instructions(&fleet, &address.to_string()));
    fleet.lab.keep()
}

/// How long three guests may take to boot at the same time, on a machine that emulates their processors.
const FLEET_BOOT: Duration = Duration::from_secs(240);

fn step<T>(what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        print!("        {what} …");
        // The line shows what takes long; that it may not be shown is no reason to stop.
        let _ = std::io::stdout().flush();
    }
    let result = run();
    let mark = if terminal { "\r" } else { "" };
    let failed = if result.is_ok() { "" } else { ": FAILED" };
    println!("{mark}{} {what}{failed}  ", seconds(start.elapsed()));
    result
}

/// A time, right-aligned.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:5.2} s", time.as_secs_f64())
}

/// What a person can do now, ready to paste.
fn instructions(fleet: &Fleet, address: &str) -> String {
    let layout = &fleet.lab.layout;
    let programs = std::env::current_exe().unwrap_or_default();
    let programs = programs.parent().unwrap_or(Path::new(".")).display();
    let name = match layout.name.as_str() {
        "demo" => String::new(),
        other => format!(" --name {other}"),
    };
    let down = if name.is_empty() {
        "make demo-down".to_owned()
    } else {
        format!("{programs}/selvedge-lab down{name}")
    };
    format!(
        "Paste what you like (as root):

  # The page: sites, hosts, rollouts, consoles (user {OWNER}, password {PASSWORD})
  {page}

  # The same from the command line
  export PATH={programs}:$PATH
  export SELVEDGE_CLIENT_CONFIG={login}
  selvedge overview
  selvedge site list
  selvedge host list
  selvedge audit

  # A site's Kubernetes API, through the orchestrator: nothing listens at the site for it
  selvedge kubeconfig berlin > /tmp/berlin.kubeconfig
  kubectl --kubeconfig /tmp/berlin.kubeconfig get hostconfigurations,virtualmachines -A

  # A virtual machine's console (leave it with Ctrl-])
  selvedge vm console --site berlin shop/web

  # Ask the guest (its network is reached from the lab's client)
  selvedge-lab exec{name} client -- curl -s http://{address}/hello.txt

  # What would a change do, before it is merged?
  git -C {repository} checkout -b hours
  sed -i 's/to the shop/to the new shop/' {repository}/base/web.yaml
  git -C {repository} commit -am 'Greet anew' && git -C {repository} push origin hours
  selvedge plan --repo {REPOSITORY} --ref hours

  # Merge it, and watch it arrive at all sites
  git -C {repository} checkout main && git -C {repository} merge hours && git -C {repository} push
  selvedge site list

  # At the host itself
  export SELVEDGE_CONFIG={host_toml}
  kubectl --kubeconfig {kubeconfig} get vm -A
  selvedge-lab exec{name} {host} -- ovs-vsctl show

  # Stop everything (in the clone of Selvedge)
  {down}
",
        page = fleet.page_url(),
        login = fleet.cli.config().display(),
        host_toml = layout.node_state(&host_name(1)).join("host.toml").display(),
        kubeconfig = layout.kubeconfig(&host_name(1), "admin").display(),
        repository = layout.site().display(),
        host = host_name(1),
    )
}
